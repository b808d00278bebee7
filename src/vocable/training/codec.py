"""The codec trainer: recipe in, model out, on one device or many. `loop.py` has the loop.

RUN/model/         config.json and model.safetensors, as from_pretrained takes them; discriminators.safetensors
RUN/tensorboard/   besides, dev audio and spectrograms at :1, :2, :4, :8
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from vocable import audio
from vocable.codec.model import SpeechTokenizer
from vocable.codec.network import CodecOutput
from vocable.corpus.manifest import Utterance, read_manifest, read_manifests, spread
from vocable.files import file_digest
from vocable.semantic.cache import FeatureCache, extract
from vocable.semantic.distillation import NO_UNIT, centred, d_axis_cosine, d_axis_loss, t_axis_loss, unit_loss
from vocable.semantic.teacher import HOP_LENGTH, SAMPLE_RATE, Teacher, canonical_layer
from vocable.semantic.units import UnitCache
from vocable.training import processes
from vocable.training.adversary import Adversary
from vocable.training.codebooks import CodebookEMA
from vocable.training.content import ContentLosses
from vocable.training.data import Batch, CropBatches
from vocable.training.disturb import Disturber
from vocable.training.log import Writer
from vocable.training.loop import Trainer
from vocable.training.losses import SpectralLoss
from vocable.training.optimizer import Updater
from vocable.training.recipe import Recipe
from vocable.training.torch_globals import num_threads, seeded

#: Modules of encoder and decoder whose matrices Muon may train: neither the first layer nor the last.
HIDDEN = ("fine", "frame", "content", "down", "up", "lstm")
LISTEN = 4  #: dev clips whose audio is logged
DISTILLATION = {"d_axis": d_axis_loss, "t_axis": t_axis_loss, "units": unit_loss}


class CodecTrainer(Trainer):
    """One training run in a folder.

    max_time and on_log: the loop's. on_load: called with seconds of audio as the teacher hears and the trainer reads
    them.
    """

    recipe: Recipe

    def __init__(
        self,
        recipe: Recipe,
        folder: str | os.PathLike[str],
        *,
        max_time: float | None = None,
        on_log: Callable[[dict[str, Any]], None] = lambda record: None,
        on_load: Callable[[float], None] = lambda seconds: None,
    ) -> None:
        super().__init__(recipe, folder, max_time, on_log)
        self.workers = recipe.data.workers
        begun = None
        if recipe.init:  # its config replaces the recipe's, and its codebooks are started already
            begun = SpeechTokenizer.from_pretrained(recipe.init, device=str(self.device), weight_norm=True).train()
            quantizer = dataclasses.replace(recipe.quantizer, start_step=0)
            recipe = self.recipe = dataclasses.replace(recipe, codec=begun.config, quantizer=quantizer)
        parts = processes.world_size() * recipe.accumulate
        if recipe.data.batch_size % parts:
            raise ValueError(f"data.batch_size must be a multiple of the {parts} parts that a step is shared out in")
        with self.processes.main_process_first():
            targets = self._targets(on_load) if recipe.distillation.weight else None
            phones = UnitCache(recipe.content.labels) if recipe.content.phones else None
        utterances = read_manifests(recipe.data.train)
        self.inputs = self._inputs(utterances)
        self.data: CropBatches = CropBatches(utterances, recipe, targets=targets, phones=phones, progress=on_load)
        if recipe.data.on_device:
            self.data.keep_on(self.device)
        with seeded(recipe.seed):  # so weights do not depend on whether the teacher's features were made just now
            self.model = begun or SpeechTokenizer(recipe.codec).to(self.device)
            self.content = self._content(phones)
            float16 = recipe.precision == "float16"
            self.adversary = Adversary(recipe.adversary, self.device, float16) if recipe.adversary.weight else None
        if self.adversary and recipe.init:
            self.adversary.load(recipe.init)
        self.codebooks = CodebookEMA(self.model.quantizer, recipe.quantizer.decay, recipe.quantizer.dead_share)
        self.spectral_loss = SpectralLoss(recipe.codec.sample_rate, recipe.losses.resolutions)
        self.updater = Updater(
            [*self.model.parameters(), *(self.content.parameters() if self.content else ())],
            recipe.optimizer,
            float16=float16,
            matrices=[p for name, p in self.model.named_parameters() if p.ndim == 2 and name.split(".")[1] in HIDDEN],
        )
        #: The model whose weights are an average over steps, if the recipe wants one: it is judged, and published.
        self.average = None
        if recipe.optimizer.ema_decay:
            averaging = get_ema_multi_avg_fn(recipe.optimizer.ema_decay)  # type: ignore[no-untyped-call]
            self.average = AveragedModel(self.model, multi_avg_fn=averaging)
        if recipe.compile:
            for network in self._networks():
                network.compile(dynamic=False)  # crops have few lengths, and inductor fails on some that it generalises
        #: Cosine and sine parts of the decoder's phase vectors in the last pass, if they have a price.
        self.phase_vectors: list[Tensor] = []
        if recipe.losses.phase:
            self._keep_phase_vectors()
        self.dev_clips = self._dev_clips()

    def parts(self) -> dict[str, Any]:
        parts: dict[str, Any] = {"model": self.model, "codebooks": self.codebooks, "optimizer": self.updater}
        if self.content:
            parts["content"] = self.content
        if self.adversary:
            parts |= {"discriminators": self.adversary.discriminators, "adversary": self.adversary.updater}
        return parts | ({"average": self.average} if self.average else {})

    @contextlib.contextmanager
    def settings(self) -> Iterator[None]:
        with super().settings(), contextlib.ExitStack() as stack:
            if self.recipe.compile:
                # All discriminators are compiled from the same few functions, with gradients and without.
                config = torch._dynamo.config
                most = max(config.cache_size_limit, 8 * len(self._networks()))
                stack.enter_context(config.patch(cache_size_limit=most))
            yield

    def _networks(self) -> list[nn.Module]:
        """What is compiled."""
        discriminators = self.adversary.discriminators if self.adversary else ()
        return [self.model.encoder, self.model.decoder, *discriminators]

    def publish(self) -> None:
        self.published.eval().save_pretrained(self.folder / "model")
        if self.adversary:
            self.adversary.save(self.folder / "model")

    def about(self) -> dict[str, Any]:
        return {"codec": self.published.id, "left_out": self.data.left_out}

    @property
    def published(self) -> SpeechTokenizer:
        """The model that dev is decoded with, and that the run leaves."""
        return cast(SpeechTokenizer, self.average.module) if self.average else self.model

    # ---- a step --------------------------------------------------------------------------------------------------

    def train_step(self, parts: list[Batch]) -> dict[str, float]:
        if self.step == self.recipe.quantizer.start_step > 0:
            self._start_codebooks()
        self.model.train()
        share = self.learning_rate_share()
        quantizing, fighting = self._quantizing, self._fighting
        records: list[dict[str, Any]] = []
        quantized = []
        for batch in parts:
            original = batch.waveform.to(self.device)
            self.phase_vectors.clear()
            with self.autocast():
                output = self._forward(original, batch.num_layers.to(self.device))
                losses, figures = self._losses(output, original, batch)
            judged: dict[str, float] = {}
            if fighting:
                with self.autocast():
                    real = fighting.look(original)
                    losses |= fighting.losses(output.waveform, real)
            total = sum((self._weights()[name] * loss for name, loss in losses.items()), original.new_zeros(()))
            self.updater.backward(total / len(parts))
            if fighting:
                with self.autocast():
                    judged = fighting.judge(output.waveform, real, 1 / len(parts))
            detached = {name: loss.detach() for name, loss in losses.items()}
            records.append({"total": total.detach(), **detached, **figures, **judged})
            quantized.append(output.quantized)
        norm = self.updater.update(share)
        if norm is None:
            if fighting:
                fighting.updater.clear()
            return self.skip()
        replaced = self.codebooks.update(quantized, self.generator()) if quantizing else 0
        if fighting and fighting.updater.update(share) is None:
            self.skipped += 1
        if self.average:
            self.average.update_parameters(self.model)
        means = {name: float(sum(record[name] for record in records)) / len(records) for name in records[0]}
        rate = share * self.recipe.optimizer.learning_rate
        return {**means, "gradient": norm, "learning_rate": rate, "dead_codes": replaced}

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
            semantic=self.model.transform(quantized.first),
            losses={"commitment": latents.new_zeros(())},
            quantized=quantized,
        )

    def _losses(
        self, output: CodecOutput, original: Tensor, batch: Batch
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The losses but for the adversary's, and figures that only the log wants."""
        targets = batch.targets
        losses = self.spectral_loss(output.waveform, original)
        losses["waveform"] = (output.waveform - original).abs().mean()
        losses["commitment"] = output.losses["commitment"]
        if self.phase_vectors:
            losses["phase"] = torch.stack([v.square().mean() for v in self.phase_vectors]).sum()
        figures = {}
        if targets is not None:
            student, targets = output.semantic, targets.to(self.device)
            if self.recipe.distillation.centre:
                student, targets = centred(student), centred(targets)
            losses["distillation"] = DISTILLATION[self.recipe.distillation.loss](student, targets)
            with torch.no_grad():
                if self.recipe.distillation.loss == "units":
                    known = targets != NO_UNIT
                    figures["unit_accuracy"] = (student.argmax(-1) == targets)[known].float().mean()
                else:
                    figures["teacher_cosine"] = d_axis_cosine(student, targets).mean()
        if self.content:
            more, shown = self.content(self.model, output, original, batch, self.generator())
            losses |= more
            figures |= shown
        return losses, figures

    def _weights(self) -> dict[str, float]:
        w = self.recipe.losses
        return {
            "mel": w.mel,
            "spectrum": w.spectrum,
            "waveform": w.waveform,
            "commitment": w.commitment,
            "phase": w.phase,
            "distillation": self.recipe.distillation.weight,
            "phones": self.recipe.content.phones,
            "consistency": self.recipe.content.consistency,
            "agreement": self.recipe.content.agreement,
            "speaker": 1.0,  # of the classifier alone: it does not reach the codec
            "voice": self.recipe.content.speaker,
            "adversarial": self.recipe.adversary.weight,
            "features": self.recipe.adversary.features,
        }

    def _keep_phase_vectors(self) -> None:
        noise = getattr(self.model.decoder, "phase_noise", None)
        if noise is None:
            raise ValueError("losses.phase is for a codec with phase_noise")

        def keep(_: object, inputs: tuple[Tensor, Tensor, int]) -> None:
            self.phase_vectors = list(inputs[:2])

        noise.register_forward_pre_hook(keep)

    @property
    def _quantizing(self) -> bool:
        return self.step >= self.recipe.quantizer.start_step

    @property
    def _fighting(self) -> Adversary | None:
        return self.adversary if self.step >= self.recipe.adversary.start_step else None

    @torch.no_grad()
    def _start_codebooks(self) -> None:
        """k-means on the latents of many batches: one batch has fewer frames than a codebook has entries."""
        recipe = self.recipe
        wanted = recipe.quantizer.kmeans_vectors * recipe.codec.codebook_size
        latents: list[Tensor] = []
        while sum(map(len, latents)) < wanted:
            batch = self.data.part(self.step + len(latents), processes.rank(), processes.world_size())
            with self.autocast():
                encoded = self.model.encoder(batch.waveform.to(self.device)).flatten(0, 1).float()
            latents.append(processes.gather_rows(encoded))
        self.codebooks.kmeans_start(torch.cat(latents), recipe.quantizer.kmeans_iterations, self.generator())

    # ---- dev -----------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def evaluate(self, writer: Writer) -> dict[str, float]:
        """Losses on fixed dev clips at :1, :2, :4 and all layers; their audio goes to the log."""
        model = self.published.eval()
        figures: dict[str, float] = {}
        clips = [torch.from_numpy(c).to(self.device) for c in self.dev_clips]
        for i, clip in enumerate(clips[:LISTEN]):
            writer.clip(f"dev{i}/recording", clip, model.sample_rate, self.step)
        encoded = model.encode(clips)
        for stop in sorted({s for s in (1, 2, 4, model.num_quantizers) if s <= model.num_quantizers}):
            decoded = model.decode(encoded, layers=slice(0, stop)).clips()
            pairs = zip(decoded, clips, strict=True)
            losses = [self.spectral_loss(d[None], c[None]) for d, c in pairs]
            for name in ("mel", "spectrum"):
                figures[f"dev/{name}:{stop}"] = float(torch.stack([one[name] for one in losses]).mean())
            for i, clip in enumerate(decoded[:LISTEN]):
                writer.clip(f"dev{i}/:{stop}", clip, model.sample_rate, self.step)
        for k in range(model.num_quantizers):
            codes = torch.cat([c[k, :n] for c, n in zip(encoded.codes, encoded.num_frames, strict=True)])
            shares = torch.bincount(codes, minlength=model.codebook_sizes[0]) / len(codes)
            figures[f"dev/perplexity{k + 1}"] = float(torch.special.entr(shares).sum().exp())
        return figures

    # ---- what it stands on -----------------------------------------------------------------------------------------

    def _dev_clips(self) -> list[np.ndarray]:
        """Clips spread evenly over the dev manifest, five seconds of each at most."""
        rate, utterances = self.recipe.codec.sample_rate, read_manifest(self.recipe.data.dev)
        return [audio.read(u.path, rate)[0][: 5 * rate] for u in spread(utterances, self.recipe.dev_clips)]

    def _targets(self, on_load: Callable[[float], None]) -> FeatureCache | UnitCache:
        """What RVQ-1 is pulled towards: the teacher's features of the training manifest, extracted now if they are not
        there, or units of them."""
        r, d = self.recipe, self.recipe.distillation
        if r.codec.sample_rate != SAMPLE_RATE or r.codec.hop_length != HOP_LENGTH:
            raise ValueError(
                f"teachers have a frame every {HOP_LENGTH} samples at {SAMPLE_RATE} Hz, and so must the codec"
            )
        if d.loss == "units":
            units = UnitCache(d.units)
            if units.num_units != r.codec.semantic_dimension:
                raise ValueError(f"codec.semantic_dimension must be the number of units, {units.num_units}")
            return units
        if not FeatureCache.is_complete(d.cache):
            with num_threads(r.threads):
                extract(Teacher(d.teacher, d.layer, str(self.device)), read_manifests(r.data.train), d.cache, on_load)
        features = FeatureCache(d.cache)
        if (features.teacher, features.layer) != (d.teacher, canonical_layer(d.layer)):
            held = f"layer {features.layer} of {features.teacher}"
            raise ValueError(f"{d.cache} holds {held}, not layer {d.layer} of {d.teacher}: name another cache")
        if features.dimension != r.codec.semantic_dimension:
            if r.init:
                held = f"{r.init} is made for a teacher of {r.codec.semantic_dimension} dimensions"
                raise ValueError(f"{held}, not {features.dimension}: name its own teacher, or leave out --init")
            raise ValueError(f"codec.semantic_dimension must be the teacher's, {features.dimension}")
        return features

    def _content(self, phones: UnitCache | None) -> ContentLosses | None:
        c, codec = self.recipe.content, self.recipe.codec
        if not (c.phones or c.consistency or c.agreement or c.speaker):
            return None
        if c.speaker and len(self.data.speakers) < 2:
            raise ValueError("content.speaker needs a manifest that names two speakers or more")
        rate = codec.sample_rate
        noises = [audio.read(u.path, rate)[0].clip(-1, 1) for u in (read_manifest(c.noise) if c.noise else ())]
        disturber = Disturber(rate, noises, self.device)
        units = phones.num_units if phones else 0
        return ContentLosses(c, codec.dimension, units, len(self.data.speakers), disturber).to(self.device)

    def _inputs(self, utterances: Sequence[Utterance]) -> dict[str, str]:
        """See `Trainer.inputs`. The features need no hash: their cache says of which teacher and layer they are."""
        recipe = self.recipe
        found = {"data.train": _manifest_digest(utterances)}
        if recipe.distillation.weight and recipe.distillation.loss == "units":
            found["distillation.units"] = _units_digest(Path(recipe.distillation.units))
        if recipe.content.phones:
            found["content.labels"] = _units_digest(Path(recipe.content.labels))
        if recipe.content.noise:
            found["content.noise"] = _manifest_digest(read_manifest(recipe.content.noise))
        return found


def _manifest_digest(utterances: Sequence[Utterance]) -> str:
    """A hash of what batches follow from, wherever the recordings lie."""
    rows = [[u.id, u.duration, u.speaker, u.language] for u in utterances]
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def _units_digest(folder: Path) -> str:
    """A hash of a folder of units."""
    files = [folder / "index.json", *sorted(folder.glob("*.npy"))]
    return hashlib.sha256(json.dumps([file_digest(path) for path in files]).encode()).hexdigest()
