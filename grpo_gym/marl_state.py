"""All learners of a game as one `Checkpoint`, and back. What belongs to one has its policy's name before its own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from grpo_gym.checkpoint import Checkpoint
from grpo_gym.encoding import decode_space, decode_value, encode_space, encode_value
from grpo_gym.marl_roles import Role, Roles
from grpo_gym.state import COUNTERS, checkpoint_of, restore

if TYPE_CHECKING:
    from grpo_gym.marl_agent import MultiGRPO

ALL_COUNTERS = (*COUNTERS, "num_agent_steps")


def checkpoint_of_all(agent: MultiGRPO, arguments: Iterable[str], exclude: Iterable[str]) -> Checkpoint:
    """Gather what `restore_all` needs.

    Args:
        agent: the learners, and the league.
        arguments: names of the constructor's arguments.
        exclude: names to leave out.
    """
    parts = {name: checkpoint_of(learner, (), ()) for name, learner in agent.learners.items()}
    first = next(iter(parts.values())).data
    left_out = {"policy", "env", "device", "tensorboard_log", "n_workers", "collector", "_init_setup_model", *exclude}
    data = {
        **first,
        "class": type(agent).__name__,
        "arguments": {name: encode_value(getattr(agent, name)) for name in arguments if name not in left_out},
        "counters": {name: getattr(agent, name) for name in ALL_COUNTERS},
        "episodes": encode_value(list(agent.ep_info_buffer)),
        "generators": {
            "plan": agent._plan_rng.bit_generator.state,
            "predict": agent._predict_rng.bit_generator.state,
        },
        "roles": [
            {
                "name": role.name,
                "agents": list(role.agents),
                "space": encode_space(role.space),
                "action_space": encode_space(role.action_space),
                "with_identity": role.with_identity,
            }
            for role in agent.roles
        ],
        "league": agent.league.state(),
        "learners": {name: part.data for name, part in parts.items()},
    }
    return Checkpoint(
        data=data,
        policy=_joined({name: part.policy for name, part in parts.items()}),
        optimizer={name: part.optimizer for name, part in parts.items()},
        streams={**_joined({name: part.streams for name, part in parts.items()}), **agent.league.tensors()},
    )


def roles_of(checkpoint: Checkpoint, path: object) -> Roles:
    """Read who is played by which policy.

    Raises:
        ValueError: if the file is one of a single agent.
    """
    if "roles" not in checkpoint.data:
        raise ValueError(f"{path} is an agent for one player, expected one for several: load it with GRPO.load")
    return Roles(
        Role(
            role["name"],
            tuple(role["agents"]),
            decode_space(role["space"]),
            decode_space(role["action_space"]),
            role["with_identity"],
        )
        for role in checkpoint.data["roles"]
    )


def restore_all(agent: MultiGRPO, checkpoint: Checkpoint, path: object) -> None:
    """Bring a newly made agent to where the stored one stood.

    Raises:
        ValueError: if the weights do not fit.
    """
    data = checkpoint.data
    for name, learner in agent.learners.items():
        policy, streams = (_part(tensors, name) for tensors in (checkpoint.policy, checkpoint.streams))
        restore(learner, Checkpoint(data["learners"][name], policy, checkpoint.optimizer[name], streams), path)
    for name in ALL_COUNTERS:
        setattr(agent, name, data["counters"][name])
    agent.ep_info_buffer.extend(decode_value(data["episodes"], "episodes"))
    agent._plan_rng.bit_generator.state = data["generators"]["plan"]
    agent._predict_rng.bit_generator.state = data["generators"]["predict"]
    policies = {name: learner.policy for name, learner in agent.learners.items()}
    agent.league.load(data["league"], checkpoint.streams, policies)


def _joined(parts: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    return {f"{name}/{key}": value for name, part in parts.items() for key, value in part.items()}


def _part(joined: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {key.removeprefix(f"{name}/"): value for key, value in joined.items() if key.startswith(f"{name}/")}
