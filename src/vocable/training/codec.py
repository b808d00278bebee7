"""The codec trainer: recipe in, model out. Reads top to bottom.

RUN/recipe.json         the recipe as it ran
RUN/state.safetensors   everything that resuming needs
RUN/log.jsonl           a line every few steps, and one for each pass over dev
RUN/model/              config.json and model.safetensors, as from_pretrained takes them
RUN/tensorboard/        the same figures, and dev audio at :1, :2, :4, :8
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import os
import signal
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vocable import audio
from vocable.codec.model import CodecOutput, SpeechTokenizer
from vocable.codec.rvq import CodebookEMA
from vocable.corpus.manifest import read_manifest
from vocable.files import atomic_path
from vocable.semantic.cache import FeatureCache, extract
from vocable.semantic.distillation import d_axis_loss
from vocable.semantic.teacher import HOP_LENGTH, SAMPLE_RATE, Teacher
from vocable.training.data import Batch, CropBatches
from vocable.training.losses import SpectralLoss
from vocable.training.recipe import Recipe
from vocable.training.state import load_optimizer_tensors, load_state, optimizer_tensors, save_state

#: What a resumed run may change; the rest of the recipe makes it the run that it is.
FREE_TO_CHANGE = ("max_steps", "device", "threads", "save_every", "evaluate_every", "dev_clips")
LOG_EVERY = 20  #: steps
FINAL_SHARE = 0.01  #: of the learning rate, at the end of the run


class Interrupted(Exception):
    """The run was asked to stop, and its state is saved. `signal` is the signal's number."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal.Signals(signal_number).name)
        self.signal = signal_number


class CodecTrainer:
    """One training run in a folder.

    max_time: seconds of training (all parts of a resumed run together) after which it ends, annealed.
    on_log: called with each log record. on_load: called with seconds of audio as the teacher hears
    and the trainer reads them.
    """

    def __init__(
        self,
        recipe: Recipe,
        folder: str | os.PathLike[str],
        *,
        max_time: float | None = None,
        on_log: Callable[[dict[str, Any]], None] = lambda record: None,
        on_load: Callable[[float], None] = lambda seconds: None,
    ) -> None:
        self.recipe, self.folder, self.max_time, self.on_log = recipe, Path(folder), max_time, on_log
        if recipe.threads:
            torch.set_num_threads(recipe.threads)
        torch.manual_seed(recipe.seed)
        self.device = torch.device(recipe.device)
        if not recipe.init:
            self.model = SpeechTokenizer(recipe.codec).to(self.device)
        else:  # its config replaces the recipe's, and its codebooks are started already
            self.model = SpeechTokenizer.from_pretrained(recipe.init, recipe.device, weight_norm=True)
            quantizer = dataclasses.replace(recipe.quantizer, start_step=0)
            recipe = self.recipe = dataclasses.replace(recipe, codec=self.model.config, quantizer=quantizer)
        features = self._features(on_load) if recipe.distillation.weight else None
        self.codebooks = CodebookEMA(self.model.quantizer, recipe.quantizer.decay, recipe.quantizer.dead_share)
        self.spectral_loss = SpectralLoss(recipe.codec.sample_rate, recipe.losses.resolutions)
        o = recipe.optimizer
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), o.learning_rate, o.betas, weight_decay=o.weight_decay, fused=True
        )
        self.dev_clips = self._dev_clips()
        self.data = self._data(features, on_load)
        self.step, self.elapsed, self.skipped, self.replaced = 0, 0.0, 0, 0

    # ---- the loop ------------------------------------------------------------------------------------------------

    def run(self) -> dict[str, Any]:
        """Train to the end; returns a summary. Raises Interrupted after Ctrl-C or SIGTERM, with the state saved."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with atomic_path(self.folder / "recipe.json") as temporary:
            temporary.write_text(json.dumps(self._recipe_json(), indent=2) + "\n")
        stop = _StopSignals()
        started, before = time.monotonic(), self.elapsed
        with stop, _Writer(self.folder) as writer, ThreadPoolExecutor(self.recipe.data.workers) as pool:
            batches = self._batches(pool)
            while self.progress < 1.0 and not stop.received:
                if self.step == self.recipe.quantizer.start_step > 0:
                    self._start_codebooks()
                record = self.train_step(next(batches))
                self.step += 1
                self.elapsed = before + time.monotonic() - started
                if self.step % LOG_EVERY == 0 or self.progress >= 1.0:
                    self._log(writer, record)
                if self.step % self.recipe.save_every == 0:
                    self.save()
                if self.step % self.recipe.evaluate_every == 0 or self.progress >= 1.0:
                    self._log(writer, self.evaluate(writer))
            self.save()
        if stop.received and self.progress < 1.0:
            raise Interrupted(stop.received)
        self.model.eval().save_pretrained(self.folder / "model")
        return {
            "codec": self.model.id,
            "steps": self.step,
            "seconds": round(self.elapsed),
            "skipped": self.skipped,
            "left_out": self.data.left_out,
        }

    @property
    def progress(self) -> float:
        """Part of the run that is done, by steps or by time, whichever is further: it drives the schedule."""
        by_time = self.elapsed / max(self.max_time, 1e-9) if self.max_time is not None else 0.0
        return max(self.step / self.recipe.max_steps, by_time)

    def train_step(self, batch: Batch) -> dict[str, float]:
        """One step of the optimizer and of the codebooks; returns the losses."""
        self.model.train()
        rate = self._set_learning_rate()
        original = batch.waveform.to(self.device)
        with self._autocast():
            output = self._forward(original, batch.num_layers.to(self.device))
        losses = self._losses(output, original, batch.features)
        total = sum((self._weights()[name] * loss for name, loss in losses.items()), original.new_zeros(()))
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.optimizer.clip_norm)
        if not bool(torch.isfinite(norm)):
            self.skipped += 1
            if self.skipped > 10 and self.skipped > self.step // 100:
                raise ValueError("the loss is not finite over and over: lower optimizer.learning_rate, check the data")
            return {"skipped": float(self.skipped)}
        self.optimizer.step()
        if self._quantizing:
            self.replaced = self.codebooks.update(output.quantized, self._generator())
        named = {name: float(loss.detach()) for name, loss in losses.items()}
        return {"total": float(total.detach()), **named, "gradient": float(norm), "learning_rate": rate}

    def _forward(self, original: Tensor, num_layers: Tensor) -> CodecOutput:
        if self._quantizing:
            output: CodecOutput = self.model(original, num_layers=num_layers)
            return output
        # Before the k-means start: the same pass with latents in place of codes.
        latents = self.model.encoder(original)
        quantized = self.model.quantizer(latents)
        return CodecOutput(
            waveform=self.model.decoder(latents)[:, : original.shape[1]],
            codes=quantized.codes,
            semantic=self.model.transform(latents),
            losses={"commitment": latents.new_zeros(())},
            quantized=quantized,
        )

    def _losses(self, output: CodecOutput, original: Tensor, features: Tensor | None) -> dict[str, Tensor]:
        losses = self.spectral_loss(output.waveform, original)
        losses["waveform"] = (output.waveform - original).abs().mean()
        losses["commitment"] = output.losses["commitment"]
        if features is not None:
            losses["distillation"] = d_axis_loss(output.semantic, features.to(self.device))
        named: dict[str, Tensor] = losses
        return named

    def _weights(self) -> dict[str, float]:
        w = self.recipe.losses
        return {
            "mel": w.mel,
            "spectrum": w.spectrum,
            "waveform": w.waveform,
            "commitment": w.commitment,
            "distillation": self.recipe.distillation.weight,
        }

    @property
    def _quantizing(self) -> bool:
        return self.step >= self.recipe.quantizer.start_step

    @torch.no_grad()
    def _start_codebooks(self) -> None:
        """k-means on the latents of many batches: one batch has fewer frames than a codebook has entries."""
        recipe = self.recipe
        wanted = recipe.quantizer.kmeans_vectors * recipe.codec.codebook_size
        latents: list[Tensor] = []
        while sum(map(len, latents)) < wanted:
            batch = self.data[self.step + len(latents)]
            with self._autocast():
                latents.append(self.model.encoder(batch.waveform.to(self.device)).flatten(0, 1).float())
        self.codebooks.kmeans_start(torch.cat(latents), recipe.quantizer.kmeans_iterations, self._generator())

    def _set_learning_rate(self) -> float:
        o, p = self.recipe.optimizer, min(self.progress, 1.0)
        if p < o.warmup:
            share = max(p, 1 / self.recipe.max_steps) / o.warmup
        else:
            cosine = 0.5 * (1 + math.cos(math.pi * (p - o.warmup) / (1 - o.warmup)))
            share = FINAL_SHARE + (1 - FINAL_SHARE) * cosine
        for group in self.optimizer.param_groups:
            group["lr"] = o.learning_rate * share
        return o.learning_rate * share

    # ---- dev -----------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def evaluate(self, writer: _Writer) -> dict[str, float]:
        """Losses on fixed dev clips at :1, :2, :4 and all layers; their audio goes to the log."""
        self.model.eval()
        figures: dict[str, float] = {}
        clips = [torch.from_numpy(c).to(self.device) for c in self.dev_clips]
        encoded = self.model.encode(clips)
        for stop in sorted({s for s in (1, 2, 4, self.model.num_quantizers) if s <= self.model.num_quantizers}):
            decoded = self.model.decode(encoded, layers=slice(0, stop)).clips()
            pairs = zip(decoded, clips, strict=True)
            losses = [self.spectral_loss(d[None], c[None]) for d, c in pairs]
            for name in ("mel", "spectrum"):
                figures[f"dev/{name}:{stop}"] = float(torch.stack([one[name] for one in losses]).mean())
            for i, clip in enumerate(decoded[:4]):
                writer.audio(f"dev{i}/:{stop}", clip, self.model.sample_rate, self.step)
        for k in range(self.model.num_quantizers):
            codes = torch.cat([c[k, :n] for c, n in zip(encoded.codes, encoded.num_frames, strict=True)])
            shares = torch.bincount(codes, minlength=self.model.codebook_size) / len(codes)
            figures[f"dev/perplexity{k + 1}"] = float(torch.special.entr(shares).sum().exp())
        return figures

    # ---- state ---------------------------------------------------------------------------------------------------

    def save(self) -> None:
        """Write RUN/state.safetensors, atomically."""
        groups = {
            "model": dict(self.model.state_dict()),
            "codebooks": self.codebooks.state_dict(),
            "optimizer": optimizer_tensors(self.optimizer),
        }
        header = {"step": self.step, "elapsed": self.elapsed, "skipped": self.skipped, "max_time": self.max_time}
        save_state(self.folder / "state.safetensors", groups, header)

    def resume(self) -> None:
        """Go on from RUN/state.safetensors. With max_steps, the result equals an uninterrupted run's bit for bit."""
        groups, header = load_state(self.folder / "state.safetensors")
        before, now = json.loads((self.folder / "recipe.json").read_text()), self._recipe_json()
        changed = [key for key in now if before.get(key) != now[key] and key not in FREE_TO_CHANGE]
        if changed:
            raise ValueError(f"{self.folder} was begun with another {', '.join(changed)}: give the same options again")
        if self.max_time is None:
            self.max_time = header["max_time"]
        try:
            self.model.load_state_dict(groups["model"])
            self.codebooks.load_state_dict(groups["codebooks"])
        except (RuntimeError, KeyError) as error:
            raise ValueError(f"{self.folder}: the state is of another recipe; start in a new folder") from error
        load_optimizer_tensors(self.optimizer, groups.get("optimizer", {}))
        self.step, self.elapsed, self.skipped = header["step"], header["elapsed"], header["skipped"]

    def _recipe_json(self) -> dict[str, Any]:
        """The recipe as JSON gives it back: tuples are lists."""
        values: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self.recipe)))
        return values

    def _generator(self) -> torch.Generator:
        """Randomness that follows from the seed and the step, so that none of it needs saving."""
        return torch.Generator().manual_seed(self.recipe.seed * 1_000_003 + self.step)

    # ---- what it stands on -----------------------------------------------------------------------------------------

    def _dev_clips(self) -> list[np.ndarray]:
        """Clips spread evenly over the dev manifest, five seconds of each at most."""
        rate, utterances = self.recipe.codec.sample_rate, read_manifest(self.recipe.data.dev)
        count = min(self.recipe.dev_clips, len(utterances))
        chosen = (utterances[i * len(utterances) // count] for i in range(count))
        return [audio.read(u.path, rate)[0][: 5 * rate] for u in chosen]

    def _features(self, on_load: Callable[[float], None]) -> FeatureCache:
        """The teacher's features of the training manifest, extracted now if they are not there."""
        r, d = self.recipe, self.recipe.distillation
        if r.codec.sample_rate != SAMPLE_RATE or r.codec.hop_length != HOP_LENGTH:
            raise ValueError(
                f"teachers have a frame every {HOP_LENGTH} samples at {SAMPLE_RATE} Hz, and so must the codec"
            )
        if not FeatureCache.is_complete(d.cache):
            extract(Teacher(d.teacher, d.layer, r.device), read_manifest(r.data.train), d.cache, on_load)
        features = FeatureCache(d.cache)
        if (features.teacher, features.layer) != (d.teacher, d.layer):
            held = f"layer {features.layer} of {features.teacher}"
            raise ValueError(f"{d.cache} holds {held}, not layer {d.layer} of {d.teacher}: name another cache")
        if features.dimension != r.codec.semantic_dimension:
            raise ValueError(f"codec.semantic_dimension must be the teacher's, {features.dimension}")
        return features

    def _data(self, features: FeatureCache | None, on_load: Callable[[float], None]) -> CropBatches:
        r = self.recipe
        return CropBatches(
            read_manifest(r.data.train),
            sample_rate=r.codec.sample_rate,
            hop_length=r.codec.hop_length,
            crop_frames=round(r.data.crop_seconds * r.codec.sample_rate / r.codec.hop_length),
            batch_size=r.data.batch_size,
            num_quantizers=r.codec.num_quantizers,
            dropout=r.quantizer.dropout,
            seed=r.seed,
            preload=r.data.preload,
            features=features,
            progress=on_load,
        )

    def _batches(self, pool: ThreadPoolExecutor) -> Iterator[Batch]:
        """The batches from this step on, a few ahead. Threads will do: numpy and libsndfile let go of the lock."""
        steps = iter(range(self.step, self.recipe.max_steps))
        ahead = deque(
            pool.submit(self.data.__getitem__, s) for s in itertools.islice(steps, 2 * self.recipe.data.workers)
        )
        while ahead:
            yield ahead.popleft().result()
            ahead.extend(pool.submit(self.data.__getitem__, s) for s in itertools.islice(steps, 1))

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.recipe.precision == "bfloat16")

    def _log(self, writer: _Writer, record: dict[str, float]) -> None:
        head = {"step": self.step, "elapsed": round(self.elapsed, 1), "progress": round(self.progress, 4)}
        whole = {**head, **record, "dead_codes": self.replaced}
        writer.record(whole, record, self.step)
        self.on_log(whole)


class _Writer:
    """RUN/log.jsonl, and TensorBoard where it is installed."""

    def __init__(self, folder: Path) -> None:
        self.file = open(folder / "log.jsonl", "a", encoding="utf-8")  # noqa: SIM115 (closed in __exit__)
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            self.board = None
        else:
            self.board = SummaryWriter(str(folder / "tensorboard"))

    def __enter__(self) -> _Writer:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()
        if self.board:
            self.board.close()

    def record(self, whole: dict[str, Any], scalars: dict[str, float], step: int) -> None:
        self.file.write(json.dumps(whole) + "\n")
        self.file.flush()
        for name, value in scalars.items() if self.board else ():
            self.board.add_scalar(name if "/" in name else f"train/{name}", value, step)  # type: ignore[union-attr]

    def audio(self, name: str, clip: Tensor, sample_rate: int, step: int) -> None:
        if self.board:
            self.board.add_audio(name, clip[None].clamp(-1, 1), step, sample_rate)


class _StopSignals:
    """Within the block, Ctrl-C and SIGTERM set `received`; a second one acts as it always does."""

    def __init__(self) -> None:
        self.received = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> _StopSignals:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _receive(self, number: int, frame: object) -> None:
        self.received = number
        signal.signal(number, self._before[number])
