"""Simulated listeners with known scores: they check the statistics, and plan a test before people take it.

A score is the system's, plus random effects of listener, clip, listener and system, clip and system, and answer
(`Spread`), rounded and limited to the scale as a listener's answer is. So the true mean is the mean of that limited
score. Careless listeners answer at random or always the same. Attentive ones fail an attention check, and rate the
hidden reference at 100 minus the absolute value of a normal number, with the probabilities below.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from vocable.evaluation.listening import inference, screening
from vocable.evaluation.listening.kinds import Kind, Spread
from vocable.extras import need

SLIP = 0.02  #: probability that an attentive listener fails a check
REFERENCE_SPREAD = 4.0  #: MUSHRA points below 100: standard deviation of the normal number
MID_ANCHOR = 50.0  #: MUSHRA points of the 7 kHz anchor
AT_ONCE = 50  #: studies in one array


@dataclass(frozen=True)
class Design:
    """What a simulated study is like."""

    kind: Kind
    heard: np.ndarray  #: bool [S, N, M]: which systems (or pairs) of which clips each listener judges
    checks: int  #: attention checks of each listener
    careless: float  #: fraction of careless listeners
    spread: Spread


@dataclass(frozen=True)
class Studies:
    """Scores of several simulated studies."""

    scores: np.ndarray  #: float [K, S, N, M], NaN where a listener does not judge
    careless: np.ndarray  #: bool [K, N]
    excluded: np.ndarray  #: bool [K, N]: by screening

    def kept(self) -> np.ndarray:
        """Return the scores without those of excluded listeners."""
        return np.where(self.excluded[:, None, :, None], np.nan, self.scores)


def true_means(centres: np.ndarray, design: Design) -> np.ndarray:
    """Return the true mean scores of systems whose scores have these centres before they are limited: [S] -> [S]."""
    kind, spread = design.kind, design.spread
    norm = need("scipy.stats", "listen").norm
    if kind.compares:
        scale, step = np.hypot(spread.listener_system, spread.clip_system), 0.001
    else:
        scale, step = np.linalg.norm(list(vars(spread).values())), 1.0
    levels = np.arange(kind.low, kind.high + step / 2, step)
    edges = norm.cdf((levels[:-1, None] + step / 2 - centres) / scale)
    upto = np.concatenate([edges, np.ones((1, len(centres)))])
    chances = np.diff(upto, axis=0, prepend=0.0)
    found: np.ndarray = levels @ chances
    return found


def simulate(centres: np.ndarray, design: Design, *, studies: int, seed: int) -> Iterator[Studies]:
    """Yield simulated studies in parts. centres: scores of systems, or fractions of answers for a pair's first: [S]."""
    rng = np.random.default_rng(seed)
    for start in range(0, studies, AT_ONCE):
        yield _simulate(centres, design, min(AT_ONCE, studies - start), rng)


def _simulate(centres: np.ndarray, design: Design, count: int, rng: np.random.Generator) -> Studies:
    kind, (_, n, m) = design.kind, design.heard.shape
    careless = rng.random((count, n)) < design.careless
    constant = careless & (rng.random((count, n)) < 0.5)
    random = careless & ~constant
    scores = _answers(centres, design, count, rng)
    always = rng.integers(int(kind.low), int(kind.high) + 1, (count, n)).astype(float)

    def replace_careless(scores: np.ndarray) -> np.ndarray:
        """Replace scores [K, ..., N, M] of careless listeners."""
        shape = (count, *[1] * (scores.ndim - 3), n, 1)
        any_score = rng.integers(int(kind.low), int(kind.high) + 1, scores.shape).astype(float)
        scores = np.where(random.reshape(shape), any_score, scores)
        # Which answer is the first system changes from trial to trial, so a constant answer is a random score.
        same = any_score if kind.compares else np.broadcast_to(always.reshape(shape), scores.shape)
        return np.where(constant.reshape(shape), same, scores)

    scores = replace_careless(scores)
    if kind.name == "mushra":
        reference = np.clip(np.round(100 - np.abs(rng.normal(0, REFERENCE_SPREAD, (count, n, m)))), 0, 100)
        anchor = _answers(np.array([MID_ANCHOR]), design, count, rng, heard=np.ones((1, n, m), bool))[:, 0]
        excluded = screening.misses_reference(replace_careless(reference))
        excluded |= screening.misses_anchor(replace_careless(anchor))
    else:
        options = len(kind.options)
        chance = np.where(careless, 1 - 1 / options, SLIP)[..., None]
        failed = (rng.random((count, n, design.checks)) < chance).astype(float)
        excluded = screening.fails_checks(failed)
        if not kind.compares:
            judged = np.where(design.heard, scores, np.nan).swapaxes(1, 2).reshape(count, n, -1)
            excluded |= screening.is_constant(judged)
    return Studies(np.where(design.heard, scores, np.nan), careless, excluded)


def _answers(
    centres: np.ndarray, design: Design, count: int, rng: np.random.Generator, heard: np.ndarray | None = None
) -> np.ndarray:
    """Return the scores of attentive listeners: [count, S, N, M]."""
    kind, spread = design.kind, design.spread
    s, (n, m) = len(centres), design.heard.shape[1:]
    normal = rng.standard_normal
    latent = centres[:, None, None] + spread.listener_system * normal((count, s, n, 1))
    latent = latent + spread.clip_system * normal((count, s, 1, m))
    if kind.compares:
        answers: np.ndarray = (rng.random((count, s, n, m)) < latent).astype(float)
        return answers
    latent = latent + spread.listener * normal((count, 1, n, 1)) + spread.clip * normal((count, 1, 1, m))
    latent = latent + spread.residual * normal((count, s, n, m))
    return np.clip(np.round(latent), kind.low, kind.high)


def check(design: Design, *, effect: float, studies: int, seed: int) -> dict[str, float]:
    """Return what simulated studies of a design show, as fractions.

    covered: intervals that contain the true mean; where systems differ. found_by_chance: studies of equal systems in
    which a difference is found after Holm's correction. found: differences of size `effect` that are found.
    careless_excluded, attentive_excluded: of the listeners of each sort.
    """
    kind, count = design.kind, len(design.heard)
    low, high = (0.5, 0.8) if kind.compares else (kind.low + 0.3 * (kind.high - kind.low), kind.high * 0.85)
    differing = np.linspace(low, high, count)
    equal = np.full(count, 0.5 if kind.compares else (low + high) / 2)
    covered, excluded = [], {True: [], False: []}  # type: ignore[var-annotated]
    truth = true_means(differing, design)
    for part in simulate(differing, design, studies=studies, seed=seed):
        bounds = inference.means(part.kept()).interval()
        covered.append((bounds[0] <= truth) & (truth <= bounds[1]))
        for careless in (True, False):
            excluded[careless].append(part.excluded[part.careless == careless])
    chance = [
        (p < inference.LEVEL).any(-1)
        for part in simulate(equal, design, studies=studies, seed=seed + 1)
        for p in [p_values(part.kept(), kind)]
    ]
    found = []
    moved = _moved(equal, effect, design)
    for part in simulate(moved, design, studies=studies, seed=seed + 2):
        corrected = p_values(part.kept(), kind)
        true = [kind.compares or a == 0 for a, _ in _tests(count, kind)]
        found.append(corrected[:, true] < inference.LEVEL)
    figures: Mapping[str, Any] = {
        "covered": covered,
        "found_by_chance": chance,
        "found": found,
        "careless_excluded": excluded[True],
        "attentive_excluded": excluded[False],
    }
    joined = {name: np.concatenate([np.ravel(part) for part in parts]) for name, parts in figures.items()}
    return {name: round(float(values.mean()), 4) for name, values in joined.items() if len(values)}


def p_values(scores: np.ndarray, kind: Kind) -> np.ndarray:
    """Return the p-values of all tests of a study after Holm's correction: [..., S, N, M] -> [..., tests]."""
    if kind.compares:
        return inference.holm(inference.means(scores).p(null=0.5))
    return inference.holm(inference.differences(scores).p())


def _tests(count: int, kind: Kind) -> list[tuple[int, int]]:
    return [(i, i) for i in range(count)] if kind.compares else inference.pairs(count)


def _moved(equal: np.ndarray, effect: float, design: Design) -> np.ndarray:
    """Return centres whose true means differ by `effect`: the first system's from all others, or pairs' from 0.5."""
    if design.kind.compares:
        return equal + effect
    moved = equal.copy()
    others = true_means(equal, design)[0]
    grid = np.linspace(0, 4 * effect, 401)
    reached = true_means(equal[0] + grid, design) - others
    moved[0] += np.interp(effect, reached, grid)
    return moved
