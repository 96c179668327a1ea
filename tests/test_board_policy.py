from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete
from torch import nn

from grpo_gym import GRPO
from grpo_gym.acting import BlockActor
from grpo_gym.board_policy import BoardActor, BoardPolicy, CellLinear, Planes, PoseLinear, poses, relative_poses

BOARD, CELLS = Box(-1, 1, (3, 5, 5), np.int8), Discrete(25)


def made(space: Box = BOARD, actions: Any = CELLS, **options: Any) -> BoardPolicy:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return BoardPolicy(space, actions, **options)


def positions(n: int, n_planes: int = 3, side: int = 5) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(-1, 2, (n, n_planes, side, side), generator=generator).to(torch.int8)


def log_probs(policy: BoardPolicy, boards: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = policy.get_distribution(boards).log_probs  # type: ignore[attr-defined]
    return found


def test_a_square_has_eight_poses() -> None:
    turned = poses(torch.tensor([[1, 2], [3, 4]])).tolist()
    assert turned[:4] == [[[1, 2], [3, 4]], [[2, 4], [1, 3]], [[4, 3], [2, 1]], [[3, 1], [4, 2]]]
    assert turned[4:] == [[[2, 1], [4, 3]], [[1, 3], [2, 4]], [[3, 4], [1, 2]], [[4, 2], [3, 1]]]


def test_a_pose_of_a_pose_is_a_pose() -> None:
    square = torch.arange(9).view(3, 3)
    for g in range(8):
        for p in range(8):
            r = relative_poses()[g, p]
            assert torch.equal(poses(poses(square)[r])[g], poses(square)[p])


def test_a_unit_sees_the_board_with_one_set_of_weights_in_eight_poses() -> None:
    layer = PoseLinear(1, poses(torch.arange(4).view(2, 2)).flatten(1))
    with torch.no_grad():
        layer.weight[:] = torch.tensor([[1.0, 10.0, 100.0, 1000.0]])
        layer.bias[:] = 5.0
    # a stone in the upper left corner, by the number of the weight that comes to lie there
    assert layer(torch.tensor([[1.0, 0.0, 0.0, 0.0]])).tolist() == [[6, 15, 1005, 105, 15, 6, 105, 1005]]


def test_what_a_unit_says_in_a_pose_goes_to_the_cells_of_that_pose() -> None:
    layer = CellLinear(1, poses(torch.arange(4).view(2, 2)).flatten(1))
    with torch.no_grad():
        layer.weight[:] = torch.tensor([[1.0, 2.0, 3.0, 4.0]])
    said = torch.zeros(1, 8)
    said[0, 2] = 1.0  # half a turn
    assert layer(said).tolist() == [[4, 3, 2, 1]]


@pytest.mark.parametrize("net_arch", [[8], [16, 24], [16, 8, 16]])
def test_a_board_that_is_turned_or_mirrored_is_played_turned_or_mirrored(net_arch: list[int]) -> None:
    boards, policy = positions(4), made(net_arch=net_arch, activation_fn=nn.Tanh)
    nn.init.normal_(policy.head.linear.weight)
    expected = poses(log_probs(policy, boards).view(4, 5, 5))
    assert (expected[1] - expected[0]).abs().max() > 0.1
    for turned, played in zip(poses(boards), expected, strict=True):
        assert torch.allclose(log_probs(policy, turned).view(4, 5, 5), played, atol=1e-5)


def test_poses_share_weights() -> None:
    # 2·3 planes of 25 weights and a bias for each of 2 units; 2 units in 8 poses and a bias for each of 3; 3 of 25
    assert sum(p.numel() for p in made(net_arch=[16, 24]).parameters()) == 2 * 151 + 3 * 17 + 3 * 25


def test_all_cells_of_a_new_policy_are_about_equally_likely() -> None:
    assert log_probs(made(), positions(9)).exp().numpy() == pytest.approx(1 / 25, rel=0.1)


def test_planes_may_come_last_and_some_may_be_left_out() -> None:
    policy = made(Box(0, 1, (3, 3, 2), np.int8), Discrete(9), features_extractor_kwargs={"chosen": [1]})
    boards = torch.zeros(1, 3, 3, 2, dtype=torch.int8)
    first, second = boards.clone(), boards.clone()
    first[0, 1, 1, 0] = second[0, 1, 1, 1] = 1
    assert log_probs(policy, boards).shape == (1, 9)
    assert torch.equal(log_probs(policy, first), log_probs(policy, boards))
    assert not torch.equal(log_probs(policy, second), log_probs(policy, boards))


def test_planes_go_in_with_their_squares() -> None:
    planes = Planes(Box(-1.0, 1.0, (2, 1, 2)), chosen=[1])
    assert planes.features_dim == 4
    assert planes(torch.tensor([[[[9.0, 9.0]], [[-1.0, 0.5]]]])).tolist() == [[-1, 0.5, 1, 0.25]]


@pytest.mark.parametrize(("activation", "kind"), [(nn.ReLU, BoardActor), (nn.GELU, BlockActor)])
def test_an_actor_plays_as_the_policy_does_whatever_else_is_asked(activation: type[nn.Module], kind: type) -> None:
    policy, boards = made(net_arch=[16, 24], activation_fn=activation), positions(37)
    nn.init.normal_(policy.head.linear.weight)
    noise = np.random.default_rng(0).random((37, 1), np.float32)
    masks = boards[:, 0].flatten(1).numpy() == 0
    actor = policy.actor()
    assert type(actor) is kind
    actions, found = actor.act(boards.numpy(), noise, masks)
    expected_actions, expected = policy.act(boards.numpy(), noise, masks)
    assert actions.tolist() == expected_actions.tolist()
    assert found == pytest.approx(expected, abs=1e-4)
    alone = [actor.act(boards[i : i + 1].numpy(), noise[i : i + 1], masks[i : i + 1]) for i in range(37)]
    assert [float(log_prob[0]) for _, log_prob in alone] == found.tolist()
    assert [int(action[0]) for action, _ in alone] == actions.tolist()


def test_an_actor_keeps_the_weights_that_it_was_made_with() -> None:
    policy, boards = made(net_arch=[16]), positions(3)
    actor, before = policy.actor(), log_probs(policy, boards).max(dim=1).values.numpy()
    nn.init.ones_(policy.head.linear.weight)
    assert actor.act(boards.numpy(), None)[1] == pytest.approx(before, abs=1e-5)


def test_positions_are_told_apart_by_the_planes_that_are_looked_at() -> None:
    policy, boards = made(features_extractor_kwargs={"chosen": [0]}), positions(4)
    others, own = boards.clone(), boards.clone()
    others[:, 1:] *= -1
    own[:, 0] *= -1
    assert policy.flatten(boards).shape == (4, 50)
    assert torch.equal(policy.flatten(others), policy.flatten(boards))
    assert not torch.equal(policy.flatten(own), policy.flatten(boards))


class Global(nn.Module):
    features_dim = 7

    def __init__(self, space: Box):
        super().__init__()


@pytest.mark.parametrize(
    ("space", "actions", "options", "message"),
    [
        (BOARD, Discrete(26), {}, r"an action for each cell, got 5×5 cells and Discrete\(26\)"),
        (BOARD, Box(-1.0, 1.0, (25,)), {}, "an action for each cell"),
        (Box(-1, 1, (3, 5, 6), np.int8), Discrete(30), {}, "square boards.*5×6"),
        (Box(-1, 1, (25,), np.int8), CELLS, {}, "expects images"),
        (BOARD, CELLS, {"net_arch": [64, 12]}, r"net_arch=\[64, 12\], expected multiples of 8"),
        (BOARD, CELLS, {"net_arch": []}, "expected multiples of 8"),
        (BOARD, CELLS, {"ortho_init": True}, "ortho_init=True has no meaning for BoardPolicy"),
        (BOARD, CELLS, {"features_extractor_class": Global}, "Global.features_dim is 7, expected planes of 25 cells"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_refused(space: Box, actions: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        made(space, actions, **options)


def test_it_learns_is_saved_and_plays_on(tmp_path: Any) -> None:
    pytest.importorskip("pettingzoo")
    options: dict[str, Any] = {"n_groups": 2, "group_size": 2, "seed": 0, "policy_kwargs": {"net_arch": [16]}}
    agent = GRPO("BoardPolicy", "pettingzoo:grpo_envs.duel", **options)
    seen = {"observation": np.zeros((3, 5, 5), np.int8), "action_mask": np.ones(25, np.int8)}
    agent.learn(100).save(tmp_path / "duel.zip")
    again = GRPO.load(tmp_path / "duel.zip")
    assert again.predict(seen, deterministic=True)[0] == agent.predict(seen, deterministic=True)[0]
