"""Score how clearly takes speak their text, by the aligner, while they are written."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch.nn.utils.rnn import pad_sequence

from vocable.codec.base import Codec
from vocable.lm.aligner import RECEPTIVE_FIELD, Aligner
from vocable.lm.takes import Take


@torch.inference_mode()
def clarity(aligner: Aligner, codec: Codec, symbols: Sequence[int], takes: Sequence[Take]) -> list[float]:
    """Return for each take the aligner's log-likelihood of the symbols that are finished, in nats per symbol.

    symbols: of the text. The scores are computed from RVQ-1 only, so no take needs its other layers or its waveform
    before it is chosen. A symbol that has just begun is not counted: that would favour takes that speak slowly.

    The aligner's scores of a frame depend on RECEPTIVE_FIELD frames to each side. Those that later frames cannot change
    are kept in `Take.judge_state`, float32 [T', symbols + 1], and the next call computes the others only.
    """
    device = codec.device
    if not any(take.finished_frames for take in takes):
        return [-math.inf] * len(takes)
    kept = [0 if take.judge_state is None else len(take.judge_state) for take in takes]
    starts = [max(0, frames - RECEPTIVE_FIELD) for frames in kept]
    newest = [torch.tensor(take.codes[start:]) for take, start in zip(takes, starts, strict=True)]
    codes = pad_sequence(newest, batch_first=True).to(device)
    vectors = codec.embed(codes[:, None], layers=slice(0, 1)).transpose(1, 2)
    num_frames = torch.tensor([take.finished_frames for take in takes], device=device)
    num_symbols = torch.tensor([take.num_finished for take in takes], device=device)
    scores = list(aligner(vectors, num_frames - torch.tensor(starts, device=device)))
    for i, take in enumerate(takes):
        new = scores[i][kept[i] - starts[i] : take.finished_frames - starts[i]]
        scores[i] = new if take.judge_state is None else torch.cat([take.judge_state, new])
        take.judge_state = scores[i][: max(kept[i], take.finished_frames - RECEPTIVE_FIELD)]
    text = torch.tensor(symbols, device=device).expand(len(takes), -1)
    padded = pad_sequence(scores, batch_first=True)
    log_likelihoods: list[float] = aligner.log_likelihood(padded, num_frames, text, num_symbols).tolist()
    return log_likelihoods
