"""Phone error rate of decoded speech against the recording, by a phone recogniser: no text is needed."""

from __future__ import annotations

import numpy as np

from vocable.evaluation.metrics.base import SAMPLE_RATE, Judges, Metric, NoAnswer, Pair, Score, register, remember
from vocable.extras import need


@register
class PhoneErrorRate(Metric):
    """Edits between the phones that `hama` recognises in the recording and in the decoded speech, over the former."""

    name, label, better, bounds, scale, digits = "per", "PER %", "lower", (0.0, np.inf), 100.0, 1
    packages = ("hama", "jiwer")
    citation = "https://pypi.org/project/hama"

    def __init__(self, judges: Judges) -> None:
        super().__init__(judges)
        self._model, self._jiwer = need("hama", "eval").ASRModel(), need("jiwer", "eval")

    def __call__(self, pair: Pair) -> Score:
        """Return edits and phones. Raises NoAnswer if no phone is recognised in the recording."""
        said = self._phones(pair.reference)
        if not said:
            raise NoAnswer("no phone heard in the recording")
        found = self._jiwer.process_words(said, self._phones(pair.decoded))
        return found.substitutions + found.deletions + found.insertions, len(said.split())

    @remember(2)
    def _phones(self, waveform: np.ndarray) -> str:
        """Return the recognised phones, separated by spaces."""
        ids, tokens = self._model(waveform, SAMPLE_RATE).token_ids, self._model.decoder_tokens
        return " ".join(tokens[i] for i in ids if tokens[i][0].isalpha())
