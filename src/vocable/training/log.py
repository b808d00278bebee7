"""The log of a run: RUN/log.jsonl, and TensorBoard where it is installed."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vocable import audio


class Writer:
    """Writes RUN/log.jsonl and RUN/tensorboard/; nothing without a folder, as in all processes except the first."""

    def __init__(self, folder: Path | None, step: int) -> None:
        """step: the step that the run begins or resumes at; TensorBoard drops what was logged after it."""
        self.file = open(folder / "log.jsonl", "a", encoding="utf-8") if folder else None  # noqa: SIM115 (see __exit__)
        self.board = None
        with contextlib.suppress(ImportError):
            from torch.utils.tensorboard import SummaryWriter

            self.board = SummaryWriter(str(folder / "tensorboard"), purge_step=step) if folder else None

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *_: object) -> None:
        if self.file:
            self.file.close()
        if self.board:
            self.board.close()

    def record(self, head: dict[str, Any], figures: dict[str, float]) -> None:
        """Write a line with `head`, which has the step, and the figures. TensorBoard gets the figures only."""
        if self.file:
            self.file.write(json.dumps(head | figures) + "\n")
            self.file.flush()
        if self.board:
            for name, value in figures.items():
                self.board.add_scalar(name if "/" in name else f"train/{name}", value, head["step"])

    def clip(self, name: str, clip: Tensor, sample_rate: int, step: int) -> None:
        """Write audio [L] and its log-mel spectrogram as an image to TensorBoard."""
        if self.board:
            self.board.add_audio(name, clip[None].clamp(-1, 1), step, sample_rate)
            self.board.add_image(f"{name} ", _spectrogram(clip.cpu(), sample_rate), step, dataformats="HW")


def _spectrogram(clip: Tensor, sample_rate: int) -> Tensor:
    """Return 80 dB of log-mel energy as brightness 0 to 1, [mels, frames], lowest frequencies in the last row."""
    spectrum = torch.stft(clip, 1024, 256, window=torch.hann_window(1024), return_complex=True).abs().T
    energy = (spectrum @ audio.mel_filterbank(sample_rate, 1024, 80)).T.clamp_min(1e-5).log10() * 20
    return ((energy - energy.max()) / 80 + 1).clamp(0, 1).flip(0)
