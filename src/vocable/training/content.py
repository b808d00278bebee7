"""Losses that make RVQ-1 hold content: phones can be read from it, disturbances and speakers cannot."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vocable import audio
from vocable.codec.model import SpeechTokenizer
from vocable.codec.network import CodecOutput
from vocable.corpus.manifest import read_manifest
from vocable.semantic.distillation import NO_UNIT, unit_loss
from vocable.semantic.units import UnitCache
from vocable.training.data import Batch
from vocable.training.disturb import Disturber
from vocable.training.recipe import Content, Recipe

TEMPERATURE = 1 / 16  #: of the softmax over codes in `agreement_loss`: a squared distance per channel


class ContentLosses(nn.Module):
    """The losses of a recipe's `content` section, with the classifiers that they train.

    The losses are "consistency", "agreement", "phones", "speaker" (trains the speaker classifier) and "voice" (trains
    the codec against it). The classifiers are optimized together with the codec, so one gradient norm is clipped for
    both.
    """

    def __init__(
        self, recipe: Content, dimension: int, num_phones: int, num_speakers: int, disturber: Disturber
    ) -> None:
        super().__init__()
        self.recipe, self.disturber = recipe, disturber
        self.phones = nn.Linear(dimension, num_phones) if recipe.phones else None
        self.speaker = SpeakerClassifier(dimension, num_speakers) if recipe.speaker else None

    def forward(
        self, model: SpeechTokenizer, output: CodecOutput, original: Tensor, batch: Batch, generator: torch.Generator
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return the losses that the recipe asks for, and figures for the log, by name; all are scalars.

        output: of `model` for `original`, float32 [B, L], the recordings of `batch`. generator: of the disturbances.
        """
        losses: dict[str, Tensor] = {}
        figures: dict[str, Tensor] = {}
        vectors = [output.quantized.first]  # RVQ-1's code vectors [B, T, D], straight-through
        labels = [] if batch.phones is None else [batch.phones.to(original.device)]
        count = round(self.recipe.disturbed * len(original))
        if (self.recipe.consistency or self.recipe.agreement) and count:
            latents = model.encoder(self.disturber(original[:count], generator))
            disturbed, disturbed_vectors, codes, distances = model.quantizer.content(latents)
            clean = output.quantized.content
            channels = model.config.content_dimension or model.config.dimension
            if self.recipe.consistency:
                # The clean clip's code vectors are the target of both: a latent close to its code vector keeps its code
                # when a disturbance moves it.
                target = output.quantized.first.detach()
                distance = torch.cat([clean - target, disturbed - target[:count]]).square().sum(-1)
                losses["consistency"] = distance.mean() / channels
            if self.recipe.agreement:
                losses["agreement"] = agreement_loss(distances / channels, output.codes[:count, 0])
            figures["kept"] = (codes == output.codes[:count, 0]).float().mean()
            vectors.append(disturbed_vectors)
            labels += [label[:count] for label in labels]
        if self.phones is not None:
            known = torch.cat(labels)
            logits = self.phones(torch.cat(vectors)).float()
            losses["phones"] = unit_loss(logits, known)
            figures["phones_right"] = _accuracy(logits, known)
        if self.speaker is not None:
            speakers = batch.speakers.to(original.device)
            # The classifier is trained on vectors without a gradient; a copy of it without gradients trains the codec.
            logits = self.speaker(output.quantized.first.detach())
            losses["speaker"] = _cross_entropy_by_clip(logits, speakers).mean()
            constants = {name: p.detach() for name, p in self.speaker.named_parameters()}
            codec_logits = torch.func.functional_call(self.speaker, constants, output.quantized.first)
            # The codec gains nothing once the classifier is no better than chance. Without this bound, misleading the
            # classifier could lower the loss without limit, and its gradient would outweigh all others.
            chance = math.log(logits.shape[1])
            losses["voice"] = -_cross_entropy_by_clip(codec_logits, speakers).clamp(max=chance).mean()
            figures["speakers_right"] = _accuracy(logits, speakers)
        return losses, figures


def make_content_losses(
    recipe: Recipe, phones: UnitCache | None, *, speakers: Sequence[str], device: torch.device
) -> ContentLosses | None:
    """Build the content losses of a codec's recipe, or return None if all their weights are 0.

    phones: the labels of the phone classifier. speakers: names of the speakers in the training data. Raises ValueError
    if the speaker loss is asked for and there are fewer than two speakers.
    """
    content, codec = recipe.content, recipe.codec
    if not (content.phones or content.consistency or content.agreement or content.speaker):
        return None
    if content.speaker and len(speakers) < 2:
        raise ValueError("content.speaker needs a manifest that names two speakers or more")
    noise = read_manifest(content.noise) if content.noise else ()
    noises = [audio.read(u.path, codec.sample_rate)[0].clip(-1, 1) for u in noise]
    disturber = Disturber(codec.sample_rate, noises, device)
    num_phones = phones.num_units if phones else 0
    return ContentLosses(content, codec.dimension, num_phones, len(speakers), disturber).to(device)


def agreement_loss(distances: Tensor, codes: Tensor) -> Tensor:
    """Return a lower bound on the mutual information of clean and disturbed clips' codes, negated; a scalar in nats.

    distances: float32 [B, T, N], squared distances per channel of the disturbed clips' latents to the N code vectors; a
    term that is the same for all N has no effect. codes: int64 [B, T], of the clean clips.

    A softmax over negative distances takes the place of the choice of a code. The bound is the entropy of the codes
    minus the cross-entropy of the clean codes. Without the entropy, one code for all frames would be the optimum.
    """
    log_probabilities = (-distances / TEMPERATURE).flatten(0, 1).log_softmax(1)  # [B T, N]
    entropy: Tensor = torch.special.entr(log_probabilities.exp().mean(0)).sum()
    return F.nll_loss(log_probabilities, codes.flatten()) - entropy


class SpeakerClassifier(nn.Module):
    """Classifier of the speaker from the mean and deviation over time of features of RVQ-1's code vectors."""

    HIDDEN = 256

    def __init__(self, dimension: int, num_speakers: int) -> None:
        super().__init__()
        self.frame = nn.Conv1d(dimension, self.HIDDEN, 5, padding=2)
        self.head = nn.Linear(2 * self.HIDDEN, num_speakers)

    def forward(self, vectors: Tensor) -> Tensor:
        """Map vectors [B, T, D] to logits of speakers [B, S]."""
        x = F.gelu(self.frame(vectors.transpose(1, 2)))
        logits: Tensor = self.head(torch.cat([x.mean(2), (x.var(2) + 1e-5).sqrt()], 1)).float()
        return logits


def _accuracy(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the fraction of known labels, int64 [...], with the highest of the logits [..., N]; 0 if none is known."""
    right = (logits.argmax(-1) == labels)[labels != NO_UNIT]
    return right.float().sum() / max(1, len(right))


def _cross_entropy_by_clip(logits: Tensor, speakers: Tensor) -> Tensor:
    """Return the cross-entropy of each clip [B] for logits [B, S] and speakers int64 [B]; 0 for an unknown speaker."""
    return F.cross_entropy(logits, speakers, ignore_index=NO_UNIT, reduction="none")
