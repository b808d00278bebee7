"""The stimuli of a test under random names: one loudness, one length for all versions of a clip, one format."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field

import numpy as np

from vocable.evaluation.listening import sound

OPEN, PROMPT, X = "open reference", "prompt", "X"  #: stimuli whose role listeners know


@dataclass
class Stimuli:
    """The stimuli of a study by (clip, system), and their blind names."""

    waveforms: dict[tuple[str, str], np.ndarray] = field(default_factory=dict)
    tokens: dict[tuple[str, str], str] = field(default_factory=dict)

    def add(self, clip: str, system: str, waveform: np.ndarray) -> None:
        """Add a stimulus under a random name."""
        self.waveforms[clip, system] = waveform
        self.tokens[clip, system] = secrets.token_hex(6)

    def level(self, target: float) -> float:
        """Bring all stimuli to one loudness, those of a clip to one length; return the loudness."""
        named = {f"{system} of {clip}": waveform for (clip, system), waveform in self.waveforms.items()}
        leveled, reached = sound.equal_loudness(named, target)
        longest: dict[str, int] = {}
        for (clip, system), waveform in self.waveforms.items():
            if system != PROMPT:
                longest[clip] = max(longest.get(clip, 0), len(waveform))
        for clip, system in self.waveforms:
            waveform = leveled[f"{system} of {clip}"]
            short = 0 if system == PROMPT else longest[clip] - len(waveform)
            self.waveforms[clip, system] = np.pad(waveform, (0, short))
        return reached

    def pcm(self) -> dict[str, np.ndarray]:
        """Return the samples by blind name, in the order of the names: int16 [L]."""
        named = {self.tokens[key]: waveform for key, waveform in self.waveforms.items()}
        return {token: np.round(named[token] * 32767).astype("<i2") for token in sorted(named)}
