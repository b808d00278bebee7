"""Phone error rate by a recogniser that is no Whisper, of decoded speech against the recording: no text is needed."""

from __future__ import annotations

import numpy as np

from vocable.evaluation.metrics.base import SAMPLE_RATE, Metric, Models, NoAnswer, Pair, Score
from vocable.extras import need


class PhoneErrorRate(Metric):
    """Edits between the phones that `hama` hears in the recording and those that it hears in the decoded speech."""

    name, label, better, bounds, scale, digits = "per", "PER %", "lower", (0.0, np.inf), 100.0, 1
    packages = ("hama", "jiwer")
    citation = "https://pypi.org/project/hama"

    def __init__(self, models: Models) -> None:
        super().__init__(models)
        self._model, self._jiwer = need("hama", "eval").ASRModel(), need("jiwer", "eval")
        self._last: tuple[bytes, str] = (b"", "")

    def __call__(self, pair: Pair) -> Score:
        key = pair.reference.tobytes()
        if key != self._last[0]:
            self._last = key, self._hear(pair.reference)
        said = self._last[1]
        if not said:
            raise NoAnswer("no phone heard in the recording")
        found = self._jiwer.process_words(said, self._hear(pair.decoded))
        return found.substitutions + found.deletions + found.insertions, len(said.split())

    def _hear(self, waveform: np.ndarray) -> str:
        """Phones, a space between two."""
        ids, tokens = self._model(waveform, SAMPLE_RATE).token_ids, self._model.decoder_tokens
        return " ".join(tokens[i] for i in ids if tokens[i][0].isalpha())
