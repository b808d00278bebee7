"""Mean opinion scores of listeners, predicted from the decoded speech alone."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import sys
import types
from pathlib import Path

import numpy as np
import torch

from vocable.codec.identity import weights_digest
from vocable.evaluation.metrics.base import SAMPLE_RATE, Judges, Metric, Pair, Score, register
from vocable.extras import need


@register
class DistillMOS(Metric):
    """DistillMOS: a small network distilled from an XLS-R quality model."""

    name, label, better, bounds = "mos", "DistillMOS", "higher", (1.0, 5.0)
    packages = ("distillmos",)
    licence = "MIT"
    citation = "Stahl and Gamper, arXiv 2502.05356"

    def __init__(self, judges: Judges) -> None:
        super().__init__(judges)
        # distillmos imports torchaudio, and uses it only to read files. Where torchaudio is missing, an empty module
        # replaces it for this import. It is removed again, because transformers would take it for torchaudio.
        missing = "torchaudio" not in sys.modules and importlib.util.find_spec("torchaudio") is None
        if missing:
            sys.modules["torchaudio"] = types.ModuleType("torchaudio")
        try:
            with contextlib.redirect_stdout(io.StringIO()):  # it prints the path of its weights
                distillmos = need("distillmos", "eval", apart="--no-deps distillmos xls-r-sqa")
                self._model = distillmos.ConvTransformerSQAModel().eval()
        finally:
            if missing:
                del sys.modules["torchaudio"]

    def __call__(self, pair: Pair) -> Score:
        """Return the predicted MOS of the decoded speech."""
        with torch.inference_mode():
            return float(self._model(torch.from_numpy(pair.decoded)[None])), 1


@register
class DNSMOS(Metric):
    """DNSMOS P.835's overall score, through speechmos, which repeats clips under 9 s to that length."""

    name, label, better, bounds = "dnsmos", "DNSMOS", "higher", (1.0, 5.0)
    packages = ("speechmos", "onnxruntime", "librosa")
    licence = "MIT"
    citation = "Reddy et al., arXiv 2110.01763"

    def __init__(self, judges: Judges) -> None:
        super().__init__(judges)
        self._dnsmos = need("speechmos.dnsmos", "eval")

    def __call__(self, pair: Pair) -> Score:
        """Return the predicted MOS of the decoded speech."""
        return float(self._dnsmos.run(np.clip(pair.decoded, -1.0, 1.0), SAMPLE_RATE)["ovrl_mos"]), 1


@register
class UTMOS(Metric):
    """UTMOS (the strong learner) through torch.hub, from a folder or from a GitHub repository.

    The code of a repository is downloaded and executed, so it needs `Judges.trust_utmos`.
    """

    name, label, better, bounds = "utmos", "UTMOS", "higher", (1.0, 5.0)
    licence = "MIT"
    citation = "Saeki et al., arXiv 2204.02152"

    def __init__(self, judges: Judges) -> None:
        super().__init__(judges)
        source = "local" if Path(judges.utmos).is_dir() else "github"
        if source == "github" and not judges.trust_utmos:
            raise ValueError(
                f"utmos downloads and runs the code of github.com/{judges.utmos}: allow it with --trust-utmos, or name "
                "a folder that holds the repository with --utmos"
            )
        try:
            self._model = torch.hub.load(judges.utmos, "utmos22_strong", source=source, trust_repo=True)  # type: ignore[no-untyped-call]
        except (OSError, ValueError, RuntimeError) as error:  # no network, no such repository, or a missing dependency
            reason = " ".join(str(error).split())
            raise ValueError(f"{judges.utmos}: UTMOS is not available: {reason}") from error

    def __call__(self, pair: Pair) -> Score:
        """Return the predicted MOS of the decoded speech."""
        with torch.inference_mode():
            return float(self._model(torch.from_numpy(pair.decoded)[None], SAMPLE_RATE)), 1

    def made_with(self) -> dict[str, str]:
        """Return the versions of packages and the names and hashes of weights."""
        return {"utmos weights": f"{self.judges.utmos} {weights_digest(self._model.state_dict())}"}
