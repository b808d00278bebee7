"""Codes of ten synthesized clips, as they were when they were last meant to change.

codes.npz holds them, and its digest is written below, so that neither changes unnoticed. After a change that is meant
to change codes (new embedded weights, say):    python tests/golden/test_golden.py
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import numpy as np
import torch

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent))

from conftest import differing_frames, tiny_paper_config
from vocable.codec.model import SpeechTokenizer

CODES = Path(__file__).with_name("codes.npz")
DIGEST = "f6040bb85c6bfc99"


def clips() -> list[torch.Tensor]:
    """Gliding harmonics with vibrato, noise bursts and pauses, a quarter of a second to 1.2 s."""
    rng = np.random.RandomState(20_308)
    found = []
    for i in range(10):
        t = np.arange(4_000 + 1_733 * i) / 16_000
        pitch = rng.uniform(80, 260) * (1 + 0.3 * t + 0.03 * np.sin(2 * np.pi * 5 * t))
        phase = 2 * np.pi * np.cumsum(pitch) / 16_000
        voice = sum(rng.uniform(0.2, 1) / h * np.sin(h * phase + rng.uniform(0, 6)) for h in range(1, 20))
        envelope = np.sin(2 * np.pi * rng.uniform(2, 5) * t) ** 2
        hiss = rng.normal(0, 0.05, len(t)) * (np.sin(2 * np.pi * 3 * t) > 0.7)
        found.append(torch.from_numpy(0.1 * voice * envelope + hiss + rng.normal(0, 1e-3, len(t))).float())
    return found


def models() -> dict[str, SpeechTokenizer]:
    """The embedded model, and a tiny one of the paper's architecture. Its weights come from numpy's RandomState, which
    is the same in every version."""
    paper = SpeechTokenizer(tiny_paper_config()).eval()
    rng = np.random.RandomState(16_692)
    for name, tensor in sorted(paper.state_dict().items()):
        values = torch.from_numpy(rng.normal(0, 1, tensor.shape)).float()
        if "recurrence" in name or name == "quantizer.codebooks":
            values *= 0.3
        elif name.endswith("bias"):
            values *= 0.01
        elif name.endswith("original0"):  # the norm of a filter: about what keeps a level
            values = 1 + 0.1 * values
        tensor.copy_(values)
    return {"fast": SpeechTokenizer.from_pretrained(), "tiny-paper": paper}


def digest(codes: dict[str, np.ndarray]) -> str:
    return hashlib.sha256(b"".join(codes[name].tobytes() for name in sorted(codes))).hexdigest()[:16]


def test_codes_are_what_they_were() -> None:
    with np.load(CODES) as file:
        golden = dict(file)
    assert digest(golden) == DIGEST, "codes.npz changed: was that meant? then write its digest here"
    frames = ties = 0
    for name, model in models().items():
        for i, clip in enumerate(clips()):
            codes = model.encode(clip).codes[0]
            expected = torch.from_numpy(golden[f"{name}/{i}"].astype(np.int64))
            assert codes.shape == expected.shape
            ties += differing_frames(model, clip, expected, codes)  # another processor may decide a near tie otherwise
            frames += codes.shape[1]
    assert ties <= 1, f"{ties} near ties in {frames} frames"


if __name__ == "__main__":
    made = {
        f"{name}/{i}": model.encode(clip).codes[0].numpy().astype(np.uint16)
        for name, model in models().items()
        for i, clip in enumerate(clips())
    }
    np.savez_compressed(CODES, **made)
    source = Path(__file__)
    source.write_text(source.read_text().replace(f'DIGEST = "{DIGEST}"', f'DIGEST = "{digest(made)}"', 1))
    print(f"{len(made)} clips, digest {digest(made)}")
