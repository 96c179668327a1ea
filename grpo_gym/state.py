"""An agent's whole state as a `Checkpoint`, and back: by an explicit list, never by whatever is in `__dict__`."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from grpo_gym.checkpoint import Checkpoint
from grpo_gym.encoding import decode_space, decode_value, encode_space, encode_value, find_unsaved, refuse_unsaved
from grpo_gym.features import EXTRACTORS
from grpo_gym.groups import InPlay, Jobs
from grpo_gym.policies import POLICIES
from grpo_gym.policy_model import PolicyModel
from grpo_gym.types import Slots
from grpo_gym.visited import Visited

if TYPE_CHECKING:
    from grpo_gym.agent import GRPO

NOT_STORED = ("policy", "env", "device", "tensorboard_log", "n_workers", "collector", "_init_setup_model")
"""Constructor arguments that belong to the machine or are stored elsewhere in the file."""

PARTS = (
    "policy",
    "arguments",
    "observation_space",
    "action_space",
    "counters",
    "episodes",
    "successes",
    "generators",
    "queue",
)
"""Entries of a checkpoint's data, all of them needed."""

COUNTERS = ("num_timesteps", "_total_timesteps", "_n_updates", "_iterations", "_current_progress_remaining")


def checkpoint_of(agent: GRPO, arguments: Iterable[str], exclude: Iterable[str]) -> Checkpoint:
    """Gather what `restore` needs.

    Args:
        agent: has a policy.
        arguments: names of the constructor's arguments.
        exclude: names to leave out.
    """
    left_out = {*NOT_STORED, *exclude}
    queue = agent.sampler.queue
    names = [name for name, cls in POLICIES.items() if cls is agent.policy_class]
    data = {
        "policy": names[0] if names else encode_value(agent.policy_class),
        "arguments": {
            name: encode_value(getattr(agent, name), EXTRACTORS) for name in arguments if name not in left_out
        },
        "observation_space": encode_space(agent.observation_space),
        "action_space": encode_space(agent.action_space),
        "counters": {name: getattr(agent, name) for name in COUNTERS},
        "episodes": encode_value(list(agent.ep_info_buffer)),
        "successes": encode_value(list(agent.ep_success_buffer)),
        "generators": {
            "plan": agent._plan_rng.bit_generator.state,
            "predict": agent._predict_rng.bit_generator.state,
        },
        "queue": None if queue is None else {"key": queue.key, "n_begun": queue.n_begun.tolist()},
    }
    return Checkpoint(
        data=data,
        policy=agent.policy.state_dict(),
        optimizer=agent.optimizer.state_dict(),
        streams={
            "update": agent._update_generator.get_state(),
            **_in_play_tensors(agent),
            **_visited_tensors(agent),
            **_reference_tensors(agent),
        },
    )


def _reference_tensors(agent: GRPO) -> dict[str, torch.Tensor]:
    """The reference policy, as it is or as it was read, as tensors by name."""
    state = agent._reference_state if agent._reference is None else agent._reference.state()
    return {f"reference.{name}": tensor for name, tensor in state.items()}


def _stored_reference(streams: Mapping[str, torch.Tensor], given: Collection[str]) -> dict[str, torch.Tensor]:
    """What is left of the stored reference where some arguments are `given` anew."""
    state = {name.removeprefix("reference."): x for name, x in streams.items() if name.startswith("reference.")}
    if "kl_coef" in given:
        state.pop("kl_coef", None)
    renewed = {"reference", "adapter_rank"} & set(given)
    return {name: x for name, x in state.items() if name == "kl_coef" or not renewed}


def _in_play_tensors(agent: GRPO) -> dict[str, torch.Tensor]:
    """Episodes that a rollout of segments cut, as tensors by name."""
    episodes = agent.sampler.in_play()
    if episodes is None:
        return {}
    arrays = {name: getattr(episodes, name) for name in ("slots", "lengths", "actions", "observations", "memories")}
    arrays.update({name: getattr(episodes.jobs, name) for name in ("groups", "members", "seeds", "noise_seeds")})
    return {f"in_play.{name}": torch.from_numpy(array) for name, array in arrays.items()}


def _stored_in_play(streams: Mapping[str, torch.Tensor]) -> InPlay | None:
    if "in_play.slots" not in streams:
        return None
    given = {
        name.removeprefix("in_play."): x.cpu().numpy() for name, x in streams.items() if name.startswith("in_play.")
    }
    jobs = Jobs(*(given[name] for name in ("groups", "members", "seeds", "noise_seeds")))
    nothing = np.zeros((len(given["slots"]), 0), np.float32)  # what files have that are older than memories
    memories = given.get("memories", nothing)
    return InPlay(given["slots"], jobs, given["lengths"], given["actions"], given["observations"], memories)


def _visited_tensors(agent: GRPO) -> dict[str, torch.Tensor]:
    """What values are fitted to besides the next iteration, as tensors by name."""
    return {
        f"visited.{i}.{field.name}": getattr(visited, field.name)
        for i, visited in enumerate(agent._earlier)
        for field in fields(Visited)
    }


def _stored_visited(streams: Mapping[str, torch.Tensor]) -> Iterator[Visited]:
    for i in itertools.count():
        if f"visited.{i}.states" not in streams:
            return
        yield Visited(**{field.name: streams[f"visited.{i}.{field.name}"].cpu() for field in fields(Visited)})


def stored_arguments(checkpoint: Checkpoint, given: Mapping[str, Any], path: object) -> dict[str, Any]:
    """Read the constructor arguments back, those in `given` replacing the stored ones.

    Raises:
        ValueError: if one was a function or a class that could not be written, and is not given;
            or if `policy_kwargs` are given that are not the stored ones.
    """
    missing = [name for name in PARTS if name not in checkpoint.data]
    if missing:
        raise ValueError(f"{path}: {', '.join(missing)} missing, expected {', '.join(PARTS)}: no agent of this package")
    stored = {"policy": checkpoint.data["policy"], **checkpoint.data["arguments"]}
    decoded = {
        name: given[name] if name in given else decode_value(value, name, EXTRACTORS) for name, value in stored.items()
    }
    decoded.update({name: value for name, value in given.items() if name not in stored})
    for name, value in decoded.items():
        refuse_unsaved(name, value)
    if "policy_kwargs" in given and "policy_kwargs" in stored:
        saved = decode_value(stored["policy_kwargs"], "policy_kwargs", EXTRACTORS)
        if find_unsaved(saved) is None and saved != given["policy_kwargs"]:
            raise ValueError(
                f"{path}: policy_kwargs={given['policy_kwargs']} differ from the stored {saved}: the weights "
                "would not fit; leave them out, or train a new agent"
            )
    return decoded


def restore(agent: GRPO, checkpoint: Checkpoint, path: object, given: Collection[str] = ()) -> None:
    """Bring a newly made agent, without a network yet, to where the stored one stood.

    Of the arguments that are `given` anew, a seed leaves the random streams as it started them, and an adapter's rank
    the adapters and their optimiser: only the network they stand beside is stored.

    Raises:
        ValueError: if the agent's environment has other spaces, or the weights do not fit.
    """
    agent.observation_space = decode_space(checkpoint.data["observation_space"])
    agent.action_space = decode_space(checkpoint.data["action_space"])
    if agent.env is not None:
        check_spaces(agent.env, agent.observation_space, agent.action_space, f"the agent of {path} was trained with")
    agent._setup_model()
    _restore_network(agent, checkpoint, path)
    agent._reference_state = _stored_reference(checkpoint.streams, given)
    for name in COUNTERS:
        setattr(agent, name, checkpoint.data["counters"][name])
    agent.ep_info_buffer.extend(decode_value(checkpoint.data["episodes"], "episodes"))
    agent.ep_success_buffer.extend(decode_value(checkpoint.data["successes"], "successes"))
    if "seed" in given:
        return
    agent._plan_rng.bit_generator.state = checkpoint.data["generators"]["plan"]
    agent._predict_rng.bit_generator.state = checkpoint.data["generators"]["predict"]
    queue = checkpoint.data["queue"]
    if queue is not None:
        agent.sampler.restore(queue["key"], queue["n_begun"], _stored_in_play(checkpoint.streams))
    agent._earlier.extend(_stored_visited(checkpoint.streams))
    agent._update_generator.set_state(checkpoint.streams["update"].to(torch.uint8).cpu())


def _restore_network(agent: GRPO, checkpoint: Checkpoint, path: object) -> None:
    """Load weights and optimiser; into an agent with adapters also what was stored without."""
    stored_rank = checkpoint.data["arguments"].get("adapter_rank")
    if stored_rank is None and agent.adapter_rank is not None:
        agent.policy.load_state_dict(checkpoint.policy, strict=False)
        return
    if stored_rank != agent.adapter_rank:
        raise ValueError(
            f"{path} has adapters of rank {stored_rank}, adapter_rank={agent.adapter_rank} was given: load it as it "
            "is, call merge_adapters() and save it"
        )
    set_parameters(
        agent.policy, agent.optimizer, {"policy": checkpoint.policy, "policy.optimizer": checkpoint.optimizer}
    )


def check_spaces(env: Slots, observation_space: Any, action_space: Any, belongs: str) -> None:
    """Require an environment's spaces to be these.

    Raises:
        ValueError: if one differs; both are named.
    """
    for name, ours in (("observation_space", observation_space), ("action_space", action_space)):
        theirs = getattr(env, name)
        if theirs != ours:
            raise ValueError(f"{name} of {env.name} is {theirs}, but {belongs} {ours}")


def set_parameters(
    policy: PolicyModel, optimizer: torch.optim.Optimizer, given: dict[str, Any], exact_match: bool = True
) -> None:
    """Load state dicts named "policy" and "policy.optimizer", in place and both or neither.

    Raises:
        ValueError: if names or shapes do not fit.
    """
    known = ("policy", "policy.optimizer")
    if set(given) - set(known) or (exact_match and set(given) != set(known)):
        raise ValueError(f"the parameters are named {sorted(given)}, expected {list(known)}")
    before = copy.deepcopy((policy.state_dict(), optimizer.state_dict()))
    try:
        if "policy" in given:
            policy.load_state_dict(given["policy"], strict=exact_match)
        if "policy.optimizer" in given:
            optimizer.load_state_dict(given["policy.optimizer"])
    except (RuntimeError, ValueError, KeyError) as error:
        policy.load_state_dict(before[0])
        optimizer.load_state_dict(before[1])
        raise ValueError(f"the parameters do not fit this agent's network: {error}") from error
