"""vocable tts"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import typer

from vocable.cli.options import SPEECH_SUFFIXES, check_speech_output
from vocable.cli.pipes import incoming, outgoing


def tts(
    text: str = typer.Argument(None, help="What to say (or --file)."),
    file: Path = typer.Option(None, help="A text file to say, or - for standard input."),
    out: Path = typer.Option(..., "-o", "--out", help="The audio file to write, or - for standard output."),
    models: str = typer.Option(None, help="RUN/model of `vocable train lm`, or a hub id (default: the shipped)."),
    prompt: Path = typer.Option(None, help="A recording of the voice; its loudest three seconds are used."),
    voice: Path = typer.Option(None, help="A voice that was prepared before, in place of --prompt."),
    save_voice: Path = typer.Option(None, help="Keep the prompt's voice in this token file."),
    language: str = typer.Option(None, help="Of the text, as en (default: what the models were trained on)."),
    takes: int = typer.Option(8, min=1, help="Written for each sentence; the clearest is spoken."),
    temperature: float = typer.Option(0.5, help="0 takes the likeliest of all."),
    top_p: float = typer.Option(0.95, help="Draw from the likeliest that hold this much of the probability."),
    guidance: float = typer.Option(2.0, help="0 loses more words, and sounds more natural."),
    seed: int = typer.Option(0, min=0, max=2**63 - 1, help="The same seed, the same speech."),
    model: str = typer.Option(
        None, "-m", "--model", help="A codec: a folder, a hub id, encodec:ID (default: the embedded)."
    ),
    device: str = typer.Option("cpu", help="cpu, cuda, ..."),
) -> None:
    """Text to speech in the voice of a recording."""
    if (text is None) == (file is None):
        raise ValueError("give the text, or --file with one")
    if prompt and voice:
        raise ValueError("--prompt and --voice are two voices: give one")
    check_speech_output(out, file, prompt, voice)
    if save_voice and not prompt:
        raise ValueError("--save-voice keeps the voice of a --prompt")

    from vocable import audio
    from vocable.cli.bars import bars
    from vocable.codec.tokens import Encoded
    from vocable.lm.sampling import Sampling
    from vocable.lm.uslm import USLM, Speech, with_pauses
    from vocable.terminal import printable

    words = text if file is None else _read_text(file)
    sampling = Sampling(temperature, top_p=top_p)
    uslm = USLM.from_pretrained(models, model, device)
    speaker = None
    if voice:
        with incoming(voice) as path:
            speaker = Encoded.load(path)
    if prompt:
        with incoming(prompt) as path:
            speaker = uslm.prepare_voice(*audio.read(path))
        if save_voice:
            speaker.save(save_voice)
    sentences = uslm.stream(
        words, speaker, language=language, sampling=sampling, takes=takes, guidance=guidance, seed=seed
    )

    def spoken() -> Iterator[Speech]:
        with bars() as progress:
            bar = progress.add_task("speaking", total=len(words))
            for sentence in sentences:
                progress.advance(bar, len(sentence.text))
                for warning in sentence.warnings:
                    line = printable(f"vocable: warning: {sentence.text}: {warning}")
                    progress.console.print(line, markup=False, highlight=False, soft_wrap=True)
                yield sentence

    rate = uslm.codec.sample_rate
    with outgoing(out, SPEECH_SUFFIXES[0]) as written:
        samples = audio.write_blocks(written, with_pauses(spoken()), rate, comment=audio.MADE_BY_MACHINE)
    typer.echo(f"{out}: {samples / rate:.1f} s by {uslm.codec.id}", err=True)


def _read_text(file: Path) -> str:
    with incoming(file) as path:
        try:
            return path.read_text(encoding="utf-8-sig")
        except UnicodeDecodeError as error:
            raise ValueError(f"{path}: not UTF-8; save it as UTF-8") from error
