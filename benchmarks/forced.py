"""Times of words by forced alignment with hama (pip install hama), a recognizer of phones with CTC.

CTC emits a phone when the phone has been heard. So a phone lasts from the emission of the one before it to its own.
"""

from __future__ import annotations

from collections.abc import Sequence

import hama
import numpy as np

FRAME = 0.02  #: seconds


class Aligner:
    """Finds when the words of a text are spoken."""

    def __init__(self) -> None:
        self.recognizer, self.pronounce = hama.ASRModel(), hama.G2PModel()
        tokens = self.recognizer.decoder_tokens
        self.ids = {token: i for i, token in enumerate(tokens)}
        self.blank, self.boundary = self.ids["<blank>"], self.ids["<wb>"]
        self.phones = sorted((t for t in tokens if t and not t.startswith("<")), key=len, reverse=True)

    def word_times(self, waveform: np.ndarray, words: Sequence[str]) -> list[tuple[float, float]]:
        """Return start and end of each word in seconds. waveform: float32 [L] at 16 kHz."""
        model = self.recognizer.session
        length = np.array([len(waveform)])
        scores, _ = model.run(["log_probs", "out_lengths"], {"waveform": waveform[None], "waveform_lengths": length})
        tokens: list[int] = []
        spans = []
        for word in words:
            tokens += [self.boundary] * bool(tokens)
            first = len(tokens)
            tokens += self.tokens(word)
            spans.append((first, len(tokens) - 1))
        ends = (emissions(np.asarray(scores)[0], tokens, self.blank) + 1) * FRAME
        # Between two words is a boundary, which CTC emits at any time until the next phone: words meet before it.
        return [(ends[first - 2] if first else 0.0, ends[last]) for first, last in spans]

    def tokens(self, word: str) -> list[int]:
        """Return the ids of a word's phones; the longest symbol that fits comes first."""
        rest, found = self.pronounce(word.lower()).ipa.replace(" ", ""), []
        while rest:
            phone = next((phone for phone in self.phones if rest.startswith(phone)), None)
            found += [] if phone is None else [self.ids[phone]]
            rest = rest[len(phone or rest[0]) :]
        return found


def emissions(scores: np.ndarray, tokens: Sequence[int], blank: int) -> np.ndarray:
    """Return the last frame at which the likeliest CTC path emits each token. scores: log-likelihoods [T, V]."""
    states = np.full(2 * len(tokens) + 1, blank)
    states[1::2] = tokens
    skips = np.zeros(len(states), bool)  # from a token to the next one, over the blank
    skips[3::2] = states[3::2] != states[1:-2:2]
    best = np.full(len(states), -np.inf)
    best[:2] = scores[0, states[:2]]
    steps = np.zeros((len(scores), len(states)), int)
    for t, frame in enumerate(scores[1:], 1):
        one, two = np.r_[-np.inf, best[:-1]], np.r_[-np.inf, -np.inf, best[:-2]]
        choices = np.stack([best, one, np.where(skips, two, -np.inf)])
        steps[t] = choices.argmax(0)
        best = choices.max(0) + frame[states]
    state = len(states) - 1 - int(best[-2] > best[-1])
    last = np.zeros(len(states), int)
    for t in range(len(scores) - 1, -1, -1):
        last[state] = max(last[state], t)
        state -= steps[t, state]
    return last[1::2]
