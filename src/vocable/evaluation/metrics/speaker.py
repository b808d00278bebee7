"""Speaker similarity: cosines of speaker embeddings."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from vocable.codec.identity import weights_digest
from vocable.evaluation.metrics.base import (
    Judges,
    Metric,
    NoAnswer,
    Pair,
    Score,
    file_hash,
    register,
    remember,
)
from vocable.extras import need

SHORTEST = 1600  #: the fewest samples of speech that an embedding is computed from


@register
class SpeakerSimilarity(Metric):
    """Cosine of Resemblyzer's embeddings of the decoded speech and of speech in the target voice."""

    name, label, better, bounds, digits = "speaker", "speaker cosine", "higher", (-1.0, 1.0), 3
    packages: ClassVar[tuple[str, ...]] = ("resemblyzer", "librosa", "webrtcvad-wheels")
    citation = "Wan et al., arXiv 1710.10467"

    def __init__(self, judges: Judges) -> None:
        super().__init__(judges)
        self._load()

    def _load(self) -> None:
        resemblyzer: Any = need("resemblyzer", "eval", apart="--no-deps resemblyzer")
        encoder = resemblyzer.VoiceEncoder("cpu", verbose=False)

        def embed(waveform: np.ndarray) -> np.ndarray:
            spoken = resemblyzer.preprocess_wav(waveform)
            if len(spoken) < SHORTEST or not spoken.any():
                raise NoAnswer("too little speech is left once the silence is cut")
            vector: np.ndarray = encoder.embed_utterance(spoken)
            return vector

        self._embed = embed
        self._weights = file_hash(Path(resemblyzer.__file__).with_name("pretrained.pt"))

    def __call__(self, pair: Pair) -> Score:
        """Return the cosine. Raises NoAnswer for a clip without speech."""
        voice = pair.reference if pair.voice is None else pair.voice
        return float(self.embedding(voice) @ self.embedding(pair.decoded)), 1

    @remember(8)
    def embedding(self, waveform: np.ndarray) -> np.ndarray:
        """Return the speaker embedding of a waveform, scaled to norm 1. Raises NoAnswer for a clip without speech."""
        vector = self._embed(waveform)
        unit: np.ndarray = vector / np.linalg.norm(vector)
        return unit

    def made_with(self) -> dict[str, str]:
        """Return the versions of packages and the names and hashes of weights."""
        return super().made_with() | {f"{self.name} weights": self._weights}


@register
class WavLMSimilarity(SpeakerSimilarity):
    """Cosine of the embeddings of a WavLM x-vector model, as in the paper, through transformers.

    The model is `Judges.wavlm`, a folder or a hub id.
    """

    name, label = "speaker-wavlm", "WavLM cosine"
    packages = ("transformers",)
    licence = "MIT"
    citation = "Chen et al., arXiv 2110.13900"

    def _load(self) -> None:
        transformers: Any = need("transformers", "eval")
        try:
            model = transformers.AutoModelForAudioXVector.from_pretrained(self.judges.wavlm).eval()
        except (OSError, ValueError) as error:
            raise ValueError(f"{self.judges.wavlm}: weights not available; name a folder that holds them") from error

        @torch.inference_mode()
        def embed(waveform: np.ndarray) -> np.ndarray:
            # The model's feature extractor scales in the same way: zero mean, unit variance.
            scaled = (waveform - waveform.mean()) / np.sqrt(waveform.var() + 1e-7)
            vector: np.ndarray = model(torch.from_numpy(scaled.astype(np.float32))[None]).embeddings[0].numpy()
            return vector

        self._embed = embed
        self._weights = f"{self.judges.wavlm} {weights_digest(model.state_dict())}"
