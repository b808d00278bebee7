"""The command `vocable tts`."""

# ruff: noqa: RUF002 (IPA)

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import typer

from vocable.cli.options import SPEECH_SUFFIXES, check_speech_output
from vocable.cli.pipes import incoming, outgoing


def tts(
    text: str = typer.Argument(None, help="The text to speak (or --file)."),
    file: Path = typer.Option(None, help="A text file to speak, or - for standard input."),
    out: Path = typer.Option(..., "-o", "--out", help="The audio file to write, or - for standard output."),
    models: str = typer.Option(
        None, help="Language models: RUN/model of `vocable train lm`, or a hub id (default: the shipped ones)."
    ),
    prompt: Path = typer.Option(None, help="A recording of the voice; the three seconds with most speech are used."),
    voice: Path = typer.Option(None, help="A voice saved by --save-voice, instead of --prompt."),
    save_voice: Path = typer.Option(None, help="Save the voice of the prompt in this token file."),
    language: str = typer.Option(
        None, help="Language of the text, such as en (default: that of the models' training)."
    ),
    takes: int = typer.Option(8, min=1, help="Versions written of each sentence; the clearest is spoken."),
    temperature: float = typer.Option(0.5, help="Of drawing codes; 0 takes the most likely one."),
    top_p: float = typer.Option(0.95, help="Draw from the most likely codes with this probability in sum."),
    guidance: float = typer.Option(2.0, help="Weight of voice and text; 0 loses more words and sounds more natural."),
    rate: float = typer.Option(1.0, help="Rate of speaking, 0.5 to 2; the pitch stays."),
    lexicon: Path = typer.Option(None, help="A file of pronunciations: on each line a word, a tab and its IPA."),
    timings: Path = typer.Option(
        None, help="Write the times of the words in this file: .srt, .vtt, .json or .TextGrid."
    ),
    seed: int = typer.Option(0, min=0, max=2**63 - 1, help="The same seed gives the same speech."),
    model: str = typer.Option(
        None, "-m", "--model", help="The codec: a folder, a hub id or encodec:ID (default: the embedded one)."
    ),
    device: str = typer.Option("cpu", help="The device to run on: cpu, cuda, ..."),
) -> None:
    """Text to speech in the voice of a recording.

    In the text, [pause 0.7s] is silence, and [word](/wɜːd/) is a word with its pronunciation in IPA.
    """
    if (text is None) == (file is None):
        raise ValueError("give the text, or --file with one")
    if prompt and voice:
        raise ValueError("--prompt and --voice both give a voice: leave one out")
    check_speech_output(out, file, prompt, voice)
    if save_voice and not prompt:
        raise ValueError("--save-voice saves the voice of a --prompt: give one")

    from vocable import audio
    from vocable.cli.bars import bars
    from vocable.codec.tokens import Encoded
    from vocable.lm.generated import GeneratedSpeech, Symbol, Word, later, with_pauses, with_starts
    from vocable.lm.pronunciation import read_lexicon
    from vocable.lm.sampling import Sampling
    from vocable.lm.timing_files import check_suffix, write_timings
    from vocable.lm.uslm import USLM
    from vocable.terminal import printable

    if timings:
        check_suffix(timings)
        if timings.resolve() in {path.resolve() for path in (out, file, prompt, voice, lexicon) if path}:
            raise ValueError(f"{timings} is an input or the output itself: name another file of timings")
    written_text = text if file is None else _read_text(file)
    pronunciations = read_lexicon(lexicon) if lexicon else None
    sampling = Sampling(temperature, top_p=top_p)
    uslm = USLM.from_pretrained(models, codec=model, device=device)
    if timings and not uslm.has_timings:
        raise ValueError("these models give no times of words: they have no timed AR and no aligner")
    speaker = None
    if voice:
        with incoming(voice) as path:
            speaker = Encoded.load(path)
    if prompt:
        with incoming(prompt) as path:
            recording, recording_rate = audio.read(path)
        speaker = uslm.prepare_voice(recording, sample_rate=recording_rate)
        if save_voice:
            speaker.save(save_voice)
    sentences = uslm.stream(
        written_text,
        speaker,
        language=language,
        sampling=sampling,
        takes=takes,
        guidance=guidance,
        seed=seed,
        rate=rate,
        lexicon=pronunciations,
    )
    words: list[Word] = []
    symbols: list[Symbol] = []

    def with_progress() -> Iterator[GeneratedSpeech]:
        """Yield the sentences, show a bar, print their warnings and keep their times."""
        with bars() as progress:
            bar = progress.add_task("speaking", total=len(written_text))
            for start, sentence in with_starts(sentences):
                progress.advance(bar, len(sentence.text))
                notes = list(sentence.warnings)
                if timings and sentence.words is None:
                    notes.append("too short for the times of its words")
                for note in notes:
                    line = printable(f"vocable: warning: {sentence.text}: {note}")
                    progress.console.print(line, markup=False, highlight=False, soft_wrap=True)
                words.extend(later(sentence.words or (), start))
                symbols.extend(later(sentence.symbols or (), start))
                yield sentence

    sample_rate = uslm.codec.sample_rate
    with outgoing(out, SPEECH_SUFFIXES[0]) as written:
        samples = audio.write_blocks(written, with_pauses(with_progress()), sample_rate, comment=audio.MADE_BY_MACHINE)
    if timings:
        write_timings(timings, words, symbols, samples / sample_rate)
    typer.echo(f"{out}: {samples / sample_rate:.1f} s by {uslm.codec.id}", err=True)


def _read_text(file: Path) -> str:
    """Read a UTF-8 text file, with or without a byte order mark."""
    with incoming(file) as path:
        try:
            return path.read_text(encoding="utf-8-sig")
        except UnicodeDecodeError as error:
            raise ValueError(f"{path}: not UTF-8; save it as UTF-8") from error
