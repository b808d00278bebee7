"""Suite `crosslingual`: reconstruction and voice conversion by language, with a multilingual recogniser."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from vocable.corpus.manifest import Utterance
from vocable.evaluation.conversion import Conversion
from vocable.evaluation.grouped import UNKNOWN, GroupedReconstruction
from vocable.evaluation.metrics import Judges
from vocable.evaluation.metrics.words import BY_CHARACTERS
from vocable.evaluation.pairs import pair_with_others
from vocable.evaluation.suite import Suite
from vocable.evaluation.summary import language_of

METRICS = ("wer", "cer", "pesq", "stoi", "speaker", "mos")


class Crosslingual(GroupedReconstruction):
    """Suite: reconstruction by language, and in OUT/conversion the suite `conversion` with English voices."""

    name, title = "crosslingual", "Crosslingual"

    def __init__(
        self,
        clips: Sequence[Utterance],
        *,
        english: Sequence[Utterance],
        systems: Sequence[str],
        system: str = "fast",
        judges: Judges,
        seed: int = 0,
    ) -> None:
        """clips: of several languages. english: clips to compare with, which give the voices for conversion.
        system: the codec that converts."""
        clips = [*clips, *english]
        super().__init__(clips, systems=systems, metrics=METRICS, judges=judges, transcribe=True, seed=seed)
        pairs = pair_with_others(clips, english, seed=seed)
        self._conversion = Conversion(pairs, system=system, judges=judges, seed=seed)

    def columns(self) -> Mapping[str, Mapping[str, str]]:
        """Return the language of each clip."""
        return {clip.id: {"language": language_of(clip) if clip.language else UNKNOWN} for clip in self.clips}

    def remarks(self) -> list[str]:
        """Return a note on languages that are judged by characters."""
        return [f"Read {', '.join(BY_CHARACTERS)} by characters (CER): Whisper base is not reliable for their words."]

    def parts(self) -> Mapping[str, Suite]:
        """Return the suite of voice conversion."""
        return {"conversion": self._conversion}
