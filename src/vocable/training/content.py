"""Losses that keep RVQ-1 to content: phones are read from it, disturbances and voices are not."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vocable.codec.model import SpeechTokenizer
from vocable.codec.network import CodecOutput
from vocable.semantic.distillation import NO_UNIT, unit_loss
from vocable.training.data import Batch
from vocable.training.disturb import Disturber
from vocable.training.recipe import Content

TEMPERATURE = 1 / 16  #: of the softmax over ids in `agreement_loss`: a squared distance per channel


class ContentLosses(nn.Module):
    """The losses of `Content` and the classifiers that they train: "consistency", "agreement", "phones", "speaker",
    "voice"."""

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
        """Losses by name, and figures that only the log wants. original: float32 [B, L]."""
        losses: dict[str, Tensor] = {}
        figures: dict[str, Tensor] = {}
        content = [output.quantized.first]  # RVQ-1's vectors [B, T, D], straight-through
        labels = [] if batch.phones is None else [batch.phones.to(original.device)]
        count = round(self.recipe.disturbed * len(original))
        if (self.recipe.consistency or self.recipe.agreement) and count:
            latents = model.encoder(self.disturber(original[:count], generator))
            disturbed, vectors, codes, distances = model.quantizer.content(latents)
            clean = output.quantized.content
            channels = model.config.content_dimension or model.config.dimension
            if self.recipe.consistency:
                # The clean clip's code vectors are the target of both: latents that lie close to their code vector
                # keep their code when something moves them.
                target = output.quantized.first.detach()
                distance = torch.cat([clean - target, disturbed - target[:count]]).square().sum(-1)
                losses["consistency"] = distance.mean() / channels
            if self.recipe.agreement:
                losses["agreement"] = agreement_loss(distances / channels, output.codes[:count, 0])
            figures["kept"] = (codes == output.codes[:count, 0]).float().mean()
            content.append(vectors)
            labels += [label[:count] for label in labels]
        if self.phones is not None:
            known = torch.cat(labels)
            logits = self.phones(torch.cat(content)).float()
            losses["phones"] = unit_loss(logits, known)
            figures["phones_right"] = _right(logits, known)
        if self.speaker is not None:
            speakers = batch.speakers.to(original.device)
            # The classifier learns on vectors that carry no gradient, and a copy that does not learn judges the codec.
            logits = self.speaker(output.quantized.first.detach())
            losses["speaker"] = _nats(logits, speakers).mean()
            fixed = {name: p.detach() for name, p in self.speaker.named_parameters()}
            heard = _nats(torch.func.functional_call(self.speaker, fixed, output.quantized.first), speakers)
            # A classifier that does no better than chance has nothing left to take away. Without this bound RVQ-1 can
            # gain without limit from misleading it, and its gradient drowns all others.
            losses["voice"] = -heard.clamp(max=math.log(logits.shape[1])).mean()
            figures["speakers_right"] = _right(logits, speakers)
        return losses, figures


def agreement_loss(distances: Tensor, codes: Tensor) -> Tensor:
    """Minus a bound on the mutual information of the clean clips' ids and their disturbed copies' ids, in nats; scalar.

    distances: float32 [B, T, N], of the copies' latents to the N code vectors, squared and per channel; a term that is
    the same for all N does not count. codes: int64 [B, T], of the clean clips.

    A softmax over negative distances stands for the choice of an id. The bound is the entropy of the ids less the
    cross-entropy of the clean ids. Without the entropy, one id for all frames would be best.
    """
    chances = (-distances / TEMPERATURE).flatten(0, 1).log_softmax(1)  # [B T, N]
    entropy: Tensor = torch.special.entr(chances.exp().mean(0)).sum()
    return F.nll_loss(chances, codes.flatten()) - entropy


class SpeakerClassifier(nn.Module):
    """RVQ-1's vectors of a crop [B, T, D] -> logits of speakers [B, S], from their statistics over time."""

    HIDDEN = 256

    def __init__(self, dimension: int, num_speakers: int) -> None:
        super().__init__()
        self.frame = nn.Conv1d(dimension, self.HIDDEN, 5, padding=2)
        self.head = nn.Linear(2 * self.HIDDEN, num_speakers)

    def forward(self, vectors: Tensor) -> Tensor:
        x = F.gelu(self.frame(vectors.transpose(1, 2)))
        logits: Tensor = self.head(torch.cat([x.mean(2), (x.var(2) + 1e-5).sqrt()], 1)).float()
        return logits


def _right(logits: Tensor, labels: Tensor) -> Tensor:
    """The fraction of known labels, int64 [...], that logits [..., N] name; 0 where none is known."""
    right = (logits.argmax(-1) == labels)[labels != NO_UNIT]
    return right.float().sum() / max(1, len(right))


def _nats(logits: Tensor, speakers: Tensor) -> Tensor:
    """Cross-entropy of each clip, logits [B, S] and int64 [B] -> [B], 0 where the speaker is not known."""
    return F.cross_entropy(logits, speakers, ignore_index=NO_UNIT, reduction="none")
