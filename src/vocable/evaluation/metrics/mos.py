"""What listeners would say, predicted from decoded speech alone."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import sys
import types
from pathlib import Path

import numpy as np
import torch

from vocable.evaluation.metrics.base import SAMPLE_RATE, Metric, Models, Pair, Score, weights_hash
from vocable.extras import need


class DistillMOS(Metric):
    """DistillMOS: a small network distilled from an XLS-R quality model."""

    name, label, better, bounds = "mos", "DistillMOS", "higher", (1.0, 5.0)
    packages = ("distillmos",)
    licence = "MIT"
    citation = "Stahl and Gamper, arXiv 2502.05356"

    def __init__(self, models: Models) -> None:
        super().__init__(models)
        # distillmos imports torchaudio for reading files alone: where it is missing, an empty module will do. It goes
        # again, because transformers looks for torchaudio too, and would stumble over it.
        missing = "torchaudio" not in sys.modules and importlib.util.find_spec("torchaudio") is None
        if missing:
            sys.modules["torchaudio"] = types.ModuleType("torchaudio")
        try:
            with contextlib.redirect_stdout(io.StringIO()):  # it prints where its weights lie
                distillmos = need("distillmos", "eval", apart="--no-deps distillmos xls-r-sqa")
                self._model = distillmos.ConvTransformerSQAModel().eval()
        finally:
            if missing:
                del sys.modules["torchaudio"]

    def __call__(self, pair: Pair) -> Score:
        with torch.inference_mode():
            return float(self._model(torch.from_numpy(pair.decoded)[None])), 1


class DNSMOS(Metric):
    """DNSMOS P.835's overall score, through speechmos; clips under 9 s are repeated to that length, as it does."""

    name, label, better, bounds = "dnsmos", "DNSMOS", "higher", (1.0, 5.0)
    packages = ("speechmos", "onnxruntime", "librosa")
    licence = "MIT"
    citation = "Reddy et al., arXiv 2110.01763"

    def __init__(self, models: Models) -> None:
        super().__init__(models)
        self._dnsmos = need("speechmos.dnsmos", "eval")

    def __call__(self, pair: Pair) -> Score:
        return float(self._dnsmos.run(np.clip(pair.decoded, -1.0, 1.0), SAMPLE_RATE)["ovrl_mos"]), 1


class UTMOS(Metric):
    """UTMOS, its strong learner, through torch.hub: from a folder, or from a GitHub repository, whose code is
    downloaded and runs here. The repository must be trusted by `Models.trust_utmos`."""

    name, label, better, bounds = "utmos", "UTMOS", "higher", (1.0, 5.0)
    licence = "MIT"
    citation = "Saeki et al., arXiv 2204.02152"

    def __init__(self, models: Models) -> None:
        super().__init__(models)
        source = "local" if Path(models.utmos).is_dir() else "github"
        if source == "github" and not models.trust_utmos:
            raise ValueError(
                f"utmos downloads and runs the code of github.com/{models.utmos}: allow it with --trust-utmos, or name "
                "a folder that holds the repository with --utmos"
            )
        try:
            self._model = torch.hub.load(models.utmos, "utmos22_strong", source=source, trust_repo=True)  # type: ignore[no-untyped-call]
        except (OSError, ValueError, RuntimeError) as error:  # no network, no such repository, or its needs are missing
            reason = " ".join(str(error).split())
            raise ValueError(f"{models.utmos}: UTMOS is not available: {reason}") from error

    def __call__(self, pair: Pair) -> Score:
        with torch.inference_mode():
            return float(self._model(torch.from_numpy(pair.decoded)[None], SAMPLE_RATE)), 1

    def made_with(self) -> dict[str, str]:
        return {"utmos weights": f"{self.models.utmos} {weights_hash(self._model)}"}
