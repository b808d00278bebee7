"""Windows of speech with the words in them, from the recogniser's word times; and the phones of clips."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vocable import audio
from vocable.corpus.manifest import Utterance, spread
from vocable.evaluation import probe
from vocable.evaluation.metrics import Judges
from vocable.evaluation.metrics.base import SAMPLE_RATE
from vocable.evaluation.metrics.words import TimedWord, recogniser
from vocable.evaluation.phones import PhoneRecogniser
from vocable.evaluation.runner import Row
from vocable.evaluation.summary import language_of

WINDOW_SECONDS = 2.0
MOST_WINDOWS = 200  #: of all clips together


@dataclass(frozen=True)
class Window:
    """WINDOW_SECONDS of a clip, and the words in it."""

    clip: str  #: its id
    start: float  #: seconds
    text: str  #: the words, normalised


@dataclass(frozen=True)
class RecogniseClip:
    """Task: a clip -> its phones and, of a test clip, the windows over its words."""

    timed: frozenset[str]  #: ids of the test clips
    judges: Judges
    made_with: Mapping[str, str]  #: versions and weights of the recognisers

    def plan(self) -> dict[str, Any]:
        """Return everything that the rows depend on."""
        timed = hashlib.sha256(repr(sorted(self.timed)).encode()).hexdigest()[:10]
        return {"made_with": dict(self.made_with), "window": WINDOW_SECONDS, "test clips": timed}

    def start(self) -> Callable[[Utterance], list[Row]]:
        """Load the recognisers and return the function that recognises a clip."""
        recognise_phones, recognise = PhoneRecogniser(), recogniser(self.judges)

        def work(clip: Utterance) -> list[Row]:
            waveform = audio.read(clip.path, SAMPLE_RATE)[0]
            phones = recognise_phones(waveform)
            row: Row = {"clip": clip.id, "seconds": phones.seconds.tolist(), "phones": phones.phones.tolist()}
            row |= {"num_phones": recognise_phones.num_phones, "windows": []}
            if clip.id in self.timed:
                words = recognise.timed_words(waveform, language_of(clip))
                row["windows"] = [vars(w) for w in cut_windows(clip, words, len(waveform) / SAMPLE_RATE)]
            return [row]

        return work


def cut_windows(clip: Utterance, recognised: Sequence[TimedWord], duration: float) -> list[Window]:
    """Cut windows that do not overlap, each from the start of a word, where the recognised words are those of the text.

    duration: of the clip, in seconds.
    """
    text = probe.normalize(clip.text or "").split()
    words = [probe.normalize(w.text).replace(" ", "") for w in recognised]
    place: dict[int, int] = {len(recognised): len(text)}  # index of a recognised word -> its index in the text
    for block in difflib.SequenceMatcher(None, words, text, autojunk=False).get_matching_blocks():
        place |= {block.a + k: block.b + k for k in range(block.size)}
    found: list[Window] = []
    free = 0.0
    for i, word in enumerate(recognised):
        stop = word.start + WINDOW_SECONDS
        inside = [k for k in range(i, len(recognised)) if recognised[k].end <= stop]
        if word.start < free or stop > duration or not inside:
            continue
        # The words of the window and the word after it are consecutive in the text: none was misrecognised or missed.
        offsets = {place.get(k, -1) - k for k in range(i, inside[-1] + 2)}
        if i in place and len(offsets) == 1:
            found.append(Window(clip.id, word.start, " ".join(words[k] for k in inside)))
            free = stop
    return found


def choose_windows(by_clip: Sequence[Sequence[Window]], *, count: int = MOST_WINDOWS) -> list[Window]:
    """Choose at most `count` windows: the first window of every clip, then the second of every clip, and so on.

    If not all windows of a round fit, they are chosen at even distances, because manifests are sorted by speaker.
    """
    chosen: list[Window] = []
    for n in range(max(map(len, by_clip), default=0)):
        chosen += spread([windows[n] for windows in by_clip if len(windows) > n], count - len(chosen))
    return chosen
