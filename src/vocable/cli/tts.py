"""vocable tts"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import typer

from vocable.cli.options import check_speech_output


def tts(
    text: str = typer.Argument(None, help="What to say (or --file)."),
    file: Path = typer.Option(None, help="A text file to say."),
    out: Path = typer.Option(..., "-o", "--out", help="The audio file to write."),
    models: str = typer.Option(None, help="RUN/model of `vocable train lm`, or a hub id (default: the shipped)."),
    prompt: Path = typer.Option(None, help="A recording of the voice; its loudest three seconds are used."),
    voice: Path = typer.Option(None, help="A voice that was prepared before, in place of --prompt."),
    save_voice: Path = typer.Option(None, help="Keep the prompt's voice in this token file."),
    language: str = typer.Option(None, help="Of the text, as en (default: what the models were trained on)."),
    takes: int = typer.Option(8, min=1, help="Written for each sentence; the clearest is spoken."),
    temperature: float = typer.Option(0.5, help="0 takes the likeliest of all."),
    top_p: float = typer.Option(0.95, help="Draw from the likeliest that hold this much of the probability."),
    guidance: float = typer.Option(2.0, help="0 loses more words, and sounds more natural."),
    seed: int = typer.Option(0, help="The same seed, the same speech."),
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

    words = text if file is None else file.read_text(encoding="utf-8")
    sampling = Sampling(temperature, top_p=top_p)
    uslm = USLM.from_pretrained(models, model, device)
    speaker = Encoded.load(voice) if voice else None
    if prompt:
        speaker = uslm.prepare_voice(*audio.read(prompt))
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
                    progress.console.print(f"vocable: warning: {sentence.text}: {warning}", markup=False)
                yield sentence

    rate = uslm.codec.sample_rate
    samples = audio.write_blocks(out, with_pauses(spoken()), rate, comment=audio.MADE_BY_MACHINE)
    typer.echo(f"{out}: {samples / rate:.1f} s by {uslm.codec.id}", err=True)
