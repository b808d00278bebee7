"""The codec trainer: recipe in, model out, on one device or several. `loop.py` has the loop.

RUN/model/         config.json and model.safetensors, as from_pretrained reads them; discriminators.safetensors
RUN/tensorboard/   also audio and spectrograms of dev clips, decoded from 1, 2, 4 and all layers
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import os
from collections.abc import Callable, Iterator
from typing import Any, cast

import torch
from torch import Tensor, nn

from vocable.codec.model import SpeechTokenizer
from vocable.codec.network import CodecOutput
from vocable.corpus.manifest import read_manifests
from vocable.semantic.distillation import NO_UNIT, centred, d_axis_cosine, d_axis_loss, t_axis_loss, unit_loss
from vocable.semantic.units import UnitCache
from vocable.training import processes
from vocable.training.adversary import Adversary
from vocable.training.codebooks import CodebookEMA
from vocable.training.content import make_content_losses
from vocable.training.data import Batch, CropBatches
from vocable.training.dev import evaluate_on_dev
from vocable.training.inputs import input_digests, load_dev_clips, load_targets
from vocable.training.log import Writer
from vocable.training.loop import Trainer
from vocable.training.losses import SpectralLoss
from vocable.training.optimizer import Updater, averaged
from vocable.training.recipe import Recipe
from vocable.training.torch_globals import seeded

#: Modules of encoder and decoder whose matrices Muon may train: all but the first layers and the last ones.
HIDDEN = ("fine", "frame", "content", "down", "up", "lstm")
DISTILLATION = {"d_axis": d_axis_loss, "t_axis": t_axis_loss, "units": unit_loss}


class CodecTrainer(Trainer):
    """A training run of a codec in a folder.

    max_time, on_log: see Trainer. on_load: called with seconds of audio, as features are extracted and recordings are
    preloaded.
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
        super().__init__(recipe, folder, max_time=max_time, on_log=on_log)
        self.workers = recipe.data.workers
        fine_tuned = None
        if recipe.init:  # its config replaces the recipe's, and its codebooks are started already
            fine_tuned = SpeechTokenizer.from_pretrained(recipe.init, device=str(self.device), weight_norm=True).train()
            quantizer = dataclasses.replace(recipe.quantizer, start_step=0)
            recipe = self.recipe = dataclasses.replace(recipe, codec=fine_tuned.config, quantizer=quantizer)
        count = processes.world_size() * recipe.accumulate
        if recipe.data.batch_size % count:
            raise ValueError(f"data.batch_size must be a multiple of the {count} micro-batches of a step")
        with self.processes.main_process_first():
            targets = load_targets(recipe, self.device, on_load) if recipe.distillation.weight else None
            phones = UnitCache(recipe.content.labels) if recipe.content.phones else None
        utterances = read_manifests(recipe.data.train)
        self.inputs = input_digests(recipe, utterances)
        self.data: CropBatches = CropBatches(utterances, recipe, targets=targets, phones=phones, progress=on_load)
        if recipe.data.on_device:
            self.data.keep_on(self.device)
        float16 = recipe.precision == "float16"
        with seeded(recipe.seed):  # after the teacher, so that weights do not depend on whether features were extracted
            self.model = fine_tuned or SpeechTokenizer(recipe.codec).to(self.device)
            self.content = make_content_losses(recipe, phones, speakers=self.data.speakers, device=self.device)
            self.adversary = Adversary(recipe.adversary, self.device, float16) if recipe.adversary.weight else None
        if self.adversary and recipe.init:
            self.adversary.load(recipe.init)
        self.codebooks = CodebookEMA(self.model.quantizer, recipe.quantizer.decay, recipe.quantizer.dead_share)
        self.spectral_loss = SpectralLoss(recipe.codec.sample_rate, recipe.losses.resolutions)
        self.loss_weights = loss_weights(recipe)
        self.updater = Updater(
            [*self.model.parameters(), *(self.content.parameters() if self.content else ())],
            recipe.optimizer,
            float16=float16,
            matrices=[p for name, p in self.model.named_parameters() if p.ndim == 2 and name.split(".")[1] in HIDDEN],
        )
        #: Moving average of the model's weights, if the recipe has one: it is evaluated and published.
        self.average = averaged(self.model, recipe.optimizer.ema_decay)
        if recipe.compile:
            for network in self._compiled_networks():
                network.compile(dynamic=False)  # crops have few lengths, and inductor fails on some dynamic shapes
        #: Cosine and sine parts of the decoder's phase vectors in the last pass, if the recipe has `losses.phase`.
        self.phase_vectors: list[Tensor] = []
        if recipe.losses.phase:
            self._keep_phase_vectors()
        self.dev_clips = load_dev_clips(recipe)

    def components(self) -> dict[str, Any]:
        """See Trainer. Groups of the saved state: model, codebooks, optimizer, and content, discriminators, adversary,
        average where the recipe has them."""
        components: dict[str, Any] = {"model": self.model, "codebooks": self.codebooks, "optimizer": self.updater}
        if self.content:
            components["content"] = self.content
        if self.adversary:
            components |= {"discriminators": self.adversary.discriminators, "adversary": self.adversary.updater}
        return components | ({"average": self.average} if self.average else {})

    @contextlib.contextmanager
    def settings(self) -> Iterator[None]:
        """See Trainer."""
        with super().settings(), contextlib.ExitStack() as stack:
            if self.recipe.compile:
                # All discriminators are compiled from the same few functions, with gradients and without.
                config = torch._dynamo.config
                limit = max(config.cache_size_limit, 8 * len(self._compiled_networks()))
                stack.enter_context(config.patch(cache_size_limit=limit))
            yield

    def _compiled_networks(self) -> list[nn.Module]:
        discriminators = self.adversary.discriminators if self.adversary else ()
        return [self.model.encoder, self.model.decoder, *discriminators]

    def publish(self) -> None:
        """Write RUN/model."""
        self.published.eval().save_pretrained(self.folder / "model")
        if self.adversary:
            self.adversary.save(self.folder / "model")

    def about(self) -> dict[str, Any]:
        """Return the published codec's id, and the number of utterances that were too short to train on."""
        return {"codec": self.published.id, "left_out": self.data.left_out}

    @property
    def published(self) -> SpeechTokenizer:
        """The model that is evaluated on dev and published: the average of the weights, or the model itself."""
        return cast(SpeechTokenizer, self.average.module) if self.average else self.model

    # ---- a step --------------------------------------------------------------------------------------------------

    def train_step(self, micro_batches: list[Batch]) -> dict[str, float]:
        """See Trainer. The codec takes its step first, then the codebooks and the discriminators."""
        if self.step == self.recipe.quantizer.start_step > 0:
            self.start_codebooks()
        self.model.train()
        factor = self.learning_rate_factor()
        quantizing = self.step >= self.recipe.quantizer.start_step
        adversary = self.adversary if self.step >= self.recipe.adversary.start_step else None
        records: list[dict[str, Any]] = []
        quantized = []
        for batch in micro_batches:
            original = batch.waveform.to(self.device)
            self.phase_vectors.clear()
            with self.autocast():
                output = self._forward(original, batch.num_layers.to(self.device), quantizing)
                losses, figures = self._losses(output, original, batch)
            if adversary:
                with self.autocast():
                    real = adversary.real_pass(original)
                    losses |= adversary.losses(output.waveform, real)
            total = sum((self.loss_weights[name] * loss for name, loss in losses.items()), original.new_zeros(()))
            self.updater.backward(total / len(micro_batches))
            detached = {name: loss.detach() for name, loss in losses.items()}
            record: dict[str, Any] = {"total": total.detach(), **detached, **figures}
            if adversary:
                with self.autocast():
                    record |= adversary.discriminator_step(output.waveform, real, 1 / len(micro_batches))
            records.append(record)
            quantized.append(output.quantized)
        norm = self.updater.update(factor)
        if norm is None:
            if adversary:
                adversary.updater.clear()
            return self.skip()
        replaced = self.codebooks.update(quantized, self.generator()) if quantizing else 0
        if adversary and adversary.updater.update(factor) is None:
            self.skipped += 1
        if self.average:
            self.average.update_parameters(self.model)
        means = {name: float(sum(record[name] for record in records)) / len(records) for name in records[0]}
        rate = factor * self.recipe.optimizer.learning_rate
        return {**means, "gradient": norm, "learning_rate": rate, "dead_codes": replaced}

    def _forward(self, original: Tensor, num_layers: Tensor, quantizing: bool) -> CodecOutput:
        """Run the codec on recordings [B, L]. Before the codebooks start, the decoder receives unquantized latents."""
        if quantizing:
            output: CodecOutput = self.model(original, num_layers=num_layers)
            return output
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
        """Return all losses except the adversary's, and figures for the log, by name; all are scalars."""
        losses = self.spectral_loss(output.waveform, original)
        losses["waveform"] = (output.waveform - original).abs().mean()
        losses["commitment"] = output.losses["commitment"]
        if self.phase_vectors:
            losses["phase"] = torch.stack([v.square().mean() for v in self.phase_vectors]).sum()
        figures: dict[str, Tensor] = {}
        if batch.targets is not None:
            loss, figures = self._distillation(output.semantic, batch.targets.to(self.device))
            losses["distillation"] = loss
        if self.content:
            content_losses, content_figures = self.content(self.model, output, original, batch, self.generator())
            losses |= content_losses
            figures |= content_figures
        return losses, figures

    def _distillation(self, student: Tensor, targets: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the distillation loss and how close the student [B, T, S] is to its targets, for the log."""
        recipe = self.recipe.distillation
        if recipe.centre:
            student, targets = centred(student), centred(targets)
        loss = DISTILLATION[recipe.loss](student, targets)
        with torch.no_grad():
            if recipe.loss == "units":
                known = targets != NO_UNIT
                return loss, {"unit_accuracy": (student.argmax(-1) == targets)[known].float().mean()}
            return loss, {"teacher_cosine": d_axis_cosine(student, targets).mean()}

    def _keep_phase_vectors(self) -> None:
        noise = getattr(self.model.decoder, "phase_noise", None)
        if noise is None:
            raise ValueError("losses.phase is for a codec with phase_noise")

        def keep(_: object, inputs: tuple[Tensor, Tensor, int]) -> None:
            self.phase_vectors = list(inputs[:2])

        noise.register_forward_pre_hook(keep)

    def start_codebooks(self) -> None:
        """Set the codebooks by k-means on the latents of the batches from this step on."""
        self.codebooks.start(self._latents(), self.recipe.quantizer, self.generator())

    @torch.no_grad()
    def _latents(self) -> Iterator[Tensor]:
        """Yield latents, float32 [N, D], of one batch after another, gathered from all processes."""
        for step in itertools.count(self.step):
            batch = self.data.micro_batch(step, processes.rank(), processes.world_size())
            with self.autocast():
                latents = self.model.encoder(batch.waveform.to(self.device)).flatten(0, 1).float()
            yield processes.gather_rows(latents)

    # ---- dev -----------------------------------------------------------------------------------------------------

    def evaluate(self, writer: Writer) -> dict[str, float]:
        """See Trainer."""
        model = self.published.eval()
        clips = [torch.from_numpy(clip).to(self.device) for clip in self.dev_clips]
        return evaluate_on_dev(model, clips, self.spectral_loss, writer=writer, step=self.step)


def loss_weights(recipe: Recipe) -> dict[str, float]:
    """Return the weight of each loss by its name in the log."""
    losses, content = recipe.losses, recipe.content
    return {
        "mel": losses.mel,
        "spectrum": losses.spectrum,
        "waveform": losses.waveform,
        "commitment": losses.commitment,
        "phase": losses.phase,
        "distillation": recipe.distillation.weight,
        "phones": content.phones,
        "consistency": content.consistency,
        "agreement": content.agreement,
        "speaker": 1.0,  # trains the classifier only: its gradient does not reach the codec
        "voice": content.speaker,
        "adversarial": recipe.adversary.weight,
        "features": recipe.adversary.features,
    }
