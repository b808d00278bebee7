"""Losses that pull RVQ-1 towards a teacher's features, or towards k-means units of them."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

#: The unit of a frame past the teacher's last one, which `unit_loss` ignores.
NO_UNIT = -100


def d_axis_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Return -log sigmoid of the cosine over time, averaged over dimensions and clips (arXiv 2308.16692 v2, eq. 1).

    student, teacher: [B, T, D]. The loss is a scalar between 0.313 (every cosine is 1) and 1.313; 0.693 at cosine 0.
    """
    return -F.logsigmoid(d_axis_cosine(student, teacher)).mean()


def d_axis_cosine(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the cosine over time of each feature dimension: [B, T, D] twice -> [B, D]."""
    return F.cosine_similarity(student.float(), teacher.float(), dim=1, eps=1e-6)


def centred(features: Tensor) -> Tensor:
    """Remove the mean over time: [B, T, D] -> [B, T, D] in float32."""
    features = features.float()
    return features - features.mean(1, keepdim=True)


def t_axis_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Return -log sigmoid of the cosine over features, averaged over frames and clips, plus a relative L1 distance.

    student, teacher: [B, T, D]. The loss is a scalar of at least 0.313, for equal features, without an upper bound; it
    is 0.693 + 1 for a student of zeros.

    The sum is that of DistilHuBERT (arXiv 2110.01900), with weights of 1. There the L1 distance is absolute, so its
    size differs by an order of magnitude between teachers and layers. Here it is divided by the mean magnitude of the
    teacher's features in the batch, so that one weight suits all teachers.
    """
    student, teacher = student.float(), teacher.float()
    cosine = F.cosine_similarity(student, teacher, dim=-1, eps=1e-6)
    distance = (student - teacher).abs().mean() / teacher.abs().mean().clamp(min=1e-6)
    return -F.logsigmoid(cosine).mean() + distance


def unit_loss(logits: Tensor, units: Tensor) -> Tensor:
    """Return the cross-entropy with the teacher's units, averaged over frames: the paper's pseudo-label variant.

    logits: [B, T, K]. units: int64 [B, T], NO_UNIT where the teacher has no frame. The loss is a scalar of at least 0,
    without an upper bound: log K for equal logits, 0 if the teacher has no frame at all.
    """
    total = F.cross_entropy(logits.float().flatten(0, 1), units.flatten(), ignore_index=NO_UNIT, reduction="sum")
    return total / (units != NO_UNIT).sum().clamp(min=1)
