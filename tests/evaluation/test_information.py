"""Estimators against joint distributions whose information is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from vocable.evaluation import information


def channel(codes: int, labels: int, sharpness: float, seed: int) -> np.ndarray:
    """Return a joint distribution [codes, labels]; the higher `sharpness`, the fewer labels a code has."""
    rng = np.random.default_rng(seed)
    joint = rng.dirichlet(np.full(codes, 2.0))[:, None] * rng.dirichlet(np.full(labels, 1 / sharpness), codes)
    return joint / joint.sum()


def truth(joint: np.ndarray) -> float:
    """Return the mutual information in bits."""
    outer = joint.sum(1, keepdims=True) * joint.sum(0)
    seen = joint > 0
    return float((joint[seen] * np.log2(joint[seen] / outer[seen])).sum())


def draw(joint: np.ndarray, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    flat = np.random.default_rng(seed).choice(joint.size, count, p=joint.ravel())
    return flat // joint.shape[1], flat % joint.shape[1]


def test_counts() -> None:
    table = information.count_table(np.array([0, 1, 1, 2]), np.array([1, 0, 0, 1]), 3, 2)
    assert table.tolist() == [[0, 1], [2, 0], [0, 1]]


def test_information_of_a_copy_is_the_entropy() -> None:
    table = np.diag([4, 4, 4, 4])
    assert information.mutual_information(table, corrected=False) == pytest.approx(2.0)
    assert information.phone_purity(table) == information.code_purity(table) == 1.0
    assert information.phone_normalized_information(table) == pytest.approx(1.0)


@pytest.mark.parametrize("sharpness", [1.0, 8.0])
def test_miller_madow_has_less_bias_than_the_plug_in(sharpness: float) -> None:
    joint = channel(200, 40, sharpness, 0)
    plug_in, corrected = [], []
    for seed in range(10):
        table = information.count_table(*draw(joint, 40_000, seed), *joint.shape)
        plug_in.append(information.mutual_information(table, corrected=False) - truth(joint))
        corrected.append(information.mutual_information(table) - truth(joint))
    assert abs(np.mean(corrected)) < 0.4 * abs(np.mean(plug_in))
    assert abs(np.mean(corrected)) < 0.04


def test_shuffled_labels_have_almost_no_information() -> None:
    codes, labels = draw(channel(200, 40, 8.0, 0), 40_000, 1)
    assert abs(information.shuffled_information(codes, labels, 200, 40)) < 0.03


def test_purity_by_hand() -> None:
    table = np.array([[3, 1], [0, 4]])
    assert information.phone_purity(table) == 7 / 8
    assert information.code_purity(table) == 7 / 8
    table = np.array([[3, 1], [2, 0]])
    assert (information.phone_purity(table), information.code_purity(table)) == (5 / 6, 4 / 6)


def test_info_nce_of_the_best_critic_is_near_the_truth_and_under_its_ceiling() -> None:
    joint = channel(30, 10, 4.0, 0)
    codes, labels = draw(joint, 512 * 40, 2)
    pointwise = torch.from_numpy(np.log((joint + 1e-12) / (joint.sum(1, keepdims=True) * joint.sum(0))))
    scores = torch.stack(
        [pointwise[c][:, k] for c, k in zip(*(x.reshape(40, -1) for x in (codes, labels)), strict=True)]
    )
    found = information.info_nce(scores)
    assert found.value == pytest.approx(truth(joint) * math.log(2), abs=0.03)
    assert found.ceiling == pytest.approx(math.log(512))
    # A channel that says more than the ceiling lets through.
    assert information.info_nce(1e3 * torch.eye(8)).value == pytest.approx(math.log(8))
    assert information.info_nce(torch.zeros(8, 8)).value == pytest.approx(0.0, abs=1e-6)


def test_a_trained_critic_estimates_the_information() -> None:
    joint = channel(30, 10, 4.0, 0)
    codes, labels = (torch.from_numpy(x) for x in draw(joint, 20_000, 3))
    vectors = torch.nn.functional.one_hot(codes, 30).float()
    critic = information.fit_critic(vectors[:10_000], labels[:10_000], 10)
    batches = zip(vectors[10_000:].split(500), labels[10_000:].split(500), strict=True)
    with torch.no_grad():
        found = information.info_nce(torch.stack([critic(v, k) for v, k in batches]))
    assert found.value == pytest.approx(truth(joint) * math.log(2), abs=0.05)


def test_vclub_with_the_true_q_is_an_upper_bound() -> None:
    joint = channel(12, 6, 2.0, 0) + 1e-4
    joint /= joint.sum()
    log_q = torch.from_numpy(np.log(joint / joint.sum(1, keepdims=True)))
    codes, labels = draw(joint, 2_000, 4)
    found = information.vclub(log_q[codes][:, labels])
    # In expectation: E[log q(y|x)] - E over independent x, y; the bound's own value, not the information's.
    independent = joint.sum(1, keepdims=True) * joint.sum(0)
    expected = float(((joint - independent) * log_q.numpy()).sum())
    assert found.value == pytest.approx(expected, abs=0.1)
    assert expected > truth(joint) * math.log(2)
    assert (found.infeasible, found.pairs) == (0, 2_000**2)


def test_vclub_leaves_impossible_pairs_out_and_counts_them() -> None:
    log_q = torch.tensor([[-1.0, -math.inf], [-3.0, -2.0]])
    found = information.vclub(log_q)
    assert found.value == pytest.approx(-1.5 - -2.0)
    assert (found.infeasible, found.pairs) == (1, 4)
    with pytest.raises(ValueError, match="matched pair"):
        information.vclub(torch.tensor([[-math.inf, -1.0], [-1.0, -1.0]]))
    with pytest.raises(ValueError, match="number"):
        information.vclub(torch.tensor([[math.nan]]))
