"""Paths of tokens: whole ones, steps, and the principal ones that MoE-LLaVA draws."""

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from polyvex.moe.pathways import Pathways

PATHS = torch.tensor([[0, 1, 1], [0, 1, 1], [0, 0, 1], [1, 0, 0], [2, 1, 1]])
SOURCE = torch.tensor([0, 0, 1, 1, -1])


def made() -> Pathways:
    found = Pathways(2, [3, 2, 2])
    found.add(PATHS[:2], SOURCE[:2])
    found.add(PATHS[2:], SOURCE[2:])
    return found


def test_common_paths_come_with_their_share_and_ties_in_order() -> None:
    assert made().common([0, 1]) == [
        {"path": [0, 1, 1], "share": 0.5},
        {"path": [0, 0, 1], "share": 0.25},
        {"path": [1, 0, 0], "share": 0.25},
    ]
    assert made().common([0]) == [{"path": [0, 1, 1], "share": 1.0}]


def test_flows_are_shares_of_tokens_from_expert_to_expert() -> None:
    first, second = made().flows([0, 1])
    assert first == [[0.25, 0.5], [0.25, 0.0], [0.0, 0.0]]
    assert second == [[0.25, 0.25], [0.0, 0.5]]


def test_components_are_those_of_a_pca_over_all_tokens() -> None:
    # vis3 of MoE-LLaVA: the paths as a matrix [layers, tokens], PCA over tokens, scaled to the numbers of experts.
    torch.manual_seed(0)
    paths = torch.randint(4, (50, 6))
    found = Pathways(1, [4] * 6)
    for part in paths.split(7):
        found.add(part, torch.zeros(len(part), dtype=torch.long))
    scores = PCA(n_components=5).fit_transform(paths.T.double().numpy())
    ours = np.array(found.components([0]))
    assert ours.shape == (5, 6)  # six layers differ in five directions
    for mine, theirs in zip(ours, scores.T, strict=True):
        scaled = (theirs - theirs.min()) / np.ptp(theirs) * 3
        assert np.allclose(mine, scaled, atol=1e-6) or np.allclose(mine, 3 - scaled, atol=1e-6)


def test_tokens_that_never_change_have_no_component() -> None:
    found = Pathways(1, [2, 2])
    found.add(torch.tensor([[1, 1], [0, 0]]), torch.zeros(2, dtype=torch.long))
    assert found.components([0]) == []
    assert Pathways(1, [2]).flows([0]) == []


@pytest.mark.parametrize("layers", [1, 2])
def test_few_layers_are_no_problem(layers: int) -> None:
    found = Pathways(1, [3] * layers)
    found.add(torch.arange(3)[:, None].expand(3, layers), torch.zeros(3, dtype=torch.long))
    assert [one["path"] for one in found.common([0])] == [[expert] * layers for expert in range(3)]
