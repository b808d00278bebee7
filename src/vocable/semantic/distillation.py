"""Losses that pull RVQ-1 towards a teacher's features."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def d_axis_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """-log sigmoid of the cosine over time, averaged over feature dimensions and clips (arXiv 2308.16692 v2, eq. 1).

    student, teacher: [B, T, D]. Returns a scalar between 0.313 (every cosine is 1) and 1.313; 0.693 at cosine 0.
    """
    return -F.logsigmoid(d_axis_cosine(student, teacher)).mean()


def d_axis_cosine(student: Tensor, teacher: Tensor) -> Tensor:
    """The cosine over time of each feature dimension: [B, T, D] twice -> [B, D]."""
    return F.cosine_similarity(student.float(), teacher.float(), dim=1, eps=1e-6)
