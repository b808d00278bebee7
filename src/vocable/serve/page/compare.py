"""The tab *Compare*: a recording and its decoded versions, in random order and without their names."""

from __future__ import annotations

import asyncio
import random

import gradio as gr

from vocable.serve.jobs import Sound
from vocable.serve.page.backend import Backend
from vocable.serve.page.parts import EVENT, note, playable, player, recorder

ORIGINAL = "original"
LAYERS = (1, 2, 8)  #: of the versions; with fewer layers in the codec, all
CHOICES = [ORIGINAL, *(f":{count}" for count in LAYERS)]
LETTERS = "ABCD"


def add_tab(backend: Backend) -> None:
    """Add the tab."""
    with gr.Tab("Compare", id="compare"):
        note(
            "Four versions of your recording, in random order: the original, and speech that is decoded from the first "
            "1, 2 and 8 layers. Which is which?"
        )
        order = gr.State([])
        source = recorder("Your speech", "compare-source")
        start = gr.Button("Mix them up", variant="primary", elem_id="compare-start")
        players, guesses = [], []
        with gr.Row():
            for letter in LETTERS:
                with gr.Column(min_width=190):
                    players.append(player(f"Version {letter}", f"compare-{letter}"))
                    guesses.append(gr.Radio(CHOICES, label=f"{letter} is", elem_id=f"compare-guess-{letter}"))
        reveal = gr.Button("Reveal", interactive=False, elem_id="compare-reveal")
        answer = gr.HTML(elem_id="compare-answer")

    async def begin(path: str | None) -> list[object]:
        if path is None:
            raise gr.Error("record or upload speech first", print_exception=False)
        recording = await backend.encode(path)
        decoded = await asyncio.gather(*(backend.decode(recording.first_layers(count)) for count in LAYERS))
        versions: list[tuple[str, Sound]] = list(zip(CHOICES, [recording.sound, *decoded], strict=True))
        random.shuffle(versions)
        names, sounds = zip(*versions, strict=True)
        blank = [gr.Radio(value=None) for _ in LETTERS]
        return [list(names), *map(playable, sounds), *blank, gr.Button(interactive=True), ""]

    async def show(names: list[str], *guessed: str | None) -> str:
        rates = {f":{count}": f"{await backend.bitrate(count):.0f} bit/s" for count in LAYERS}
        return _answers(names, guessed, rates)

    start.click(begin, source, [order, *players, *guesses, reveal, answer], show_progress_on=players, **EVENT)
    reveal.click(show, [order, *guesses], answer, **EVENT)


def _answers(names: list[str], guessed: tuple[str | None, ...], rates: dict[str, str]) -> str:
    """Return HTML that shows what each version is, and how many guesses are right."""
    right = [name == guess for name, guess in zip(names, guessed, strict=True)]
    cells = "".join(
        f'<div class="{"right" if ok else "wrong" if guess else ""}">'
        f"<b>{letter}: {name}</b><span>{rates.get(name, 'as recorded')}</span></div>"
        for letter, name, guess, ok in zip(LETTERS, names, guessed, right, strict=True)
    )
    score = f"<p>{sum(right)} of {len(right)} right.</p>" if any(guessed) else ""
    return f'<div class="facts">{cells}</div>{score}'
