"""PettingZoo's games behind one face: who must act now, what they see, and what came to whom."""

from __future__ import annotations

import copy
import functools
import importlib
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, Protocol

import gymnasium as gym
import numpy as np

from grpo_gym.extras import need
from grpo_gym.types import BoolArray

PETTINGZOO = "pettingzoo:"
"""How the names of PettingZoo's games begin."""

MASK = "action_mask"
"""Where PettingZoo's environments put action masks, in the observation or in the info."""

_MADE_TO_KNOW: list[tuple[Any, Any]] = []
"""At most one function that `is_pettingzoo` had to call, and what it made: `make_games` begins with that."""

EXPECTED = (
    "expected a PettingZoo ParallelEnv or AECEnv, a function that makes one (mpe2.simple_spread_v3.parallel_env), or "
    "its module by name ('pettingzoo:mpe2.simple_spread_v3'), or its id ('pettingzoo:classic/tictactoe-v3')"
)


class Ask(NamedTuple):
    """A player that must act now.

    Attributes:
        agent: its name.
        observation: as the environment gave it, a mask in it included.
        mask: legal actions, `[n_actions]`; None if the environment has no masks.
    """

    agent: str
    observation: Any
    mask: BoolArray | None


class End(NamedTuple):
    """A player that will not act again, unless it is asked.

    Attributes:
        agent: its name.
        observation: what it saw last.
        terminated: by itself; False if the environment cut it.
    """

    agent: str
    observation: Any
    terminated: bool


class Game(Protocol):
    """One environment, in which players act at once or in turn.

    Attributes:
        env: PettingZoo's environment.
        asks: who must act now; none when the game is over. A player that is not asked has no row.
        rewards: what came to whom in the last `start` or `act`, also to players that had no part in it.
        ends: whose part ended in the last `start` or `act`.
    """

    env: Any
    asks: list[Ask]
    rewards: list[tuple[str, float]]
    ends: list[End]

    def start(self, seed: int) -> None:
        """Begin the game of this seed."""
        ...

    def act(self, actions: Sequence[Any]) -> None:
        """Take the actions of those that were asked, in the order of `asks`. It is one environment step."""
        ...

    def seen_by(self, agent: str) -> Any:
        """Return what a player sees now, though it may not be asked."""
        ...

    def unread(self) -> list[tuple[str, float]]:
        """Return what came to players whose turn it has not been since; it is lost if the game is left now."""
        ...


class ParallelGame:
    """A `ParallelEnv`: all that live are asked at once. See `Game`."""

    def __init__(self, env: Any):
        self.env = env
        self.asks: list[Ask] = []
        self.rewards: list[tuple[str, float]] = []
        self.ends: list[End] = []
        self._seen: dict[str, Any] = {}

    def start(self, seed: int) -> None:
        """See `Game.start`."""
        self._seen, infos = self.env.reset(seed=seed)
        self.rewards, self.ends = [], []
        self._ask(self.env.agents, infos)

    def act(self, actions: Sequence[Any]) -> None:
        """See `Game.act`."""
        acted = [ask.agent for ask in self.asks]
        seen, rewards, terminated, truncated, infos = self.env.step(dict(zip(acted, actions, strict=True)))
        self._seen.update(seen)
        self.rewards = list(rewards.items())
        # who has just ended is in these dictionaries for the last time, and in `agents` no more
        live = [agent for agent in self.env.agents if not (terminated.get(agent) or truncated.get(agent))]
        gone = [agent for agent in acted if agent not in live]
        self.ends = [End(agent, self._seen[agent], not truncated.get(agent, False)) for agent in gone]
        self._ask(live, infos)

    def seen_by(self, agent: str) -> Any:
        """See `Game.seen_by`."""
        return self._seen[agent]

    def unread(self) -> list[tuple[str, float]]:
        """See `Game.unread`."""
        return []

    def _ask(self, agents: Iterable[str], infos: dict[str, Any]) -> None:
        self.asks = [Ask(agent, self._seen[agent], mask_of(self._seen[agent], infos.get(agent))) for agent in agents]


class TurnGame:
    """An `AECEnv`: one player is asked at a time. See `Game`.

    A player's rewards are read when it is its turn again, or when it is dismissed: there the loser finds its −1.
    """

    def __init__(self, env: Any):
        self.env = env
        self.asks: list[Ask] = []
        self.rewards: list[tuple[str, float]] = []
        self.ends: list[End] = []

    def start(self, seed: int) -> None:
        """See `Game.start`."""
        self.env.reset(seed=seed)
        self._turn()

    def act(self, actions: Sequence[Any]) -> None:
        """See `Game.act`."""
        (action,) = actions
        self.env.step(action)
        self._turn()

    def seen_by(self, agent: str) -> Any:
        """See `Game.seen_by`."""
        return self.env.observe(agent)

    def unread(self) -> list[tuple[str, float]]:
        """See `Game.unread`."""
        asked = [ask.agent for ask in self.asks]
        return [(agent, float(r)) for agent, r in self.env._cumulative_rewards.items() if r and agent not in asked]

    def _turn(self) -> None:
        """Dismiss the players whose part is over, up to the next that must act."""
        env = self.env
        self.asks, self.rewards, self.ends = [], [], []
        while env.agents:
            observation, reward, terminated, truncated, info = env.last()
            agent = env.agent_selection
            if reward:
                self.rewards.append((agent, float(reward)))
            if not (terminated or truncated):
                self.asks = [Ask(agent, observation, mask_of(observation, info))]
                return
            self.ends.append(End(agent, copy.deepcopy(observation), not truncated))
            env.step(None)


def mask_of(observation: Any, info: dict[str, Any] | None) -> BoolArray | None:
    """Find the action mask that came with an observation, in it or in the info."""
    if isinstance(observation, dict) and MASK in observation:
        return np.asarray(observation[MASK], np.bool_)
    if info and MASK in info:
        return np.asarray(info[MASK], np.bool_)
    return None


def without_mask(observation: Any) -> Any:
    """Take the mask out of an observation: what is left is for the network."""
    if not isinstance(observation, dict) or MASK not in observation:
        return observation
    rest = {key: value for key, value in observation.items() if key != MASK}
    return next(iter(rest.values())) if len(rest) == 1 else rest


def space_without_mask(space: gym.Space[Any]) -> gym.Space[Any]:
    """Return the space of what `without_mask` leaves."""
    if not isinstance(space, gym.spaces.Dict) or MASK not in space.spaces:
        return space
    rest = {key: value for key, value in space.items() if key != MASK}
    return next(iter(rest.values())) if len(rest) == 1 else gym.spaces.Dict(rest)


def is_pettingzoo(env: Any) -> bool:
    """Tell whether this is, names or makes one of PettingZoo's environments.

    A function must be called to know, which is done only where PettingZoo has been imported. One of PettingZoo's
    environments is kept for `make_games`; any other is closed.
    """
    if isinstance(env, str):
        return env.startswith(PETTINGZOO)
    pettingzoo = sys.modules.get("pettingzoo")
    if pettingzoo is None or isinstance(env, gym.Env | gym.vector.VectorEnv):
        return False
    kinds = (pettingzoo.ParallelEnv, pettingzoo.AECEnv)
    if isinstance(env, type) or not callable(env):
        return issubclass(env, kinds) if isinstance(env, type) else isinstance(env, kinds)
    made = env()
    if isinstance(made, kinds):
        _MADE_TO_KNOW[:] = [(env, made)]
        return True
    if hasattr(made, "close"):
        made.close()
    return False


def make_games(env: Any, n_games: int) -> list[Game]:
    """Make games of whatever describes a PettingZoo environment.

    Args:
        env: an environment, which is copied; a function or class that makes one; or a name, "pettingzoo:" and a
            module or a registered id. Of a module that has both, `parallel_env` is taken and not `env`.
        n_games: games that may be in play at once.

    Raises:
        ImportError: if PettingZoo or the named module is not installed.
        TypeError: if it is none of these.
        ValueError: if there is no environment of that name, or an environment cannot be copied.
    """
    pettingzoo = need("pettingzoo", "multiagent", "a game of several agents")
    make = find_maker(env) if isinstance(env, str) else env
    if isinstance(make, pettingzoo.ParallelEnv | pettingzoo.AECEnv):
        envs = _copies(make, n_games)
    elif callable(make):
        first = [made for maker, made in _MADE_TO_KNOW if maker is make]
        _MADE_TO_KNOW.clear()
        envs = first + [make() for _ in range(n_games - len(first))]
    else:
        raise TypeError(f"env={env!r} is a {type(env).__name__}; {EXPECTED}")
    games: list[Game] = []
    for one in envs:
        if not isinstance(one, pettingzoo.ParallelEnv | pettingzoo.AECEnv):
            raise TypeError(f"{env!r} made a {type(one).__name__}; {EXPECTED}")
        bare = _peeled(one)
        games.append(ParallelGame(bare) if isinstance(one, pettingzoo.ParallelEnv) else TurnGame(bare))
    if len({id(one) for one in envs}) < n_games:
        raise ValueError(f"{env!r} returned the same environment twice; expected a new one at each call")
    return games


def _peeled(env: Any) -> Any:
    """Step past PettingZoo's checks of order and bounds, a third of a small game's time: we keep both ourselves."""
    utils = importlib.import_module("pettingzoo.utils")
    while type(env) in (utils.wrappers.OrderEnforcingWrapper, utils.wrappers.AssertOutOfBoundsWrapper):
        env = env.env
    if type(env) is utils.conversions.aec_to_parallel_wrapper:
        env.aec_env = _peeled(env.aec_env)
        # it asks each player twice what it sees, and the first time looks away
        env.aec_env.last = functools.partial(env.aec_env.last, observe=False)
    return env


def find_maker(name: str) -> Callable[..., Any]:
    """Find what makes the environment of that name; it takes the environment's options.

    Raises:
        ImportError: if PettingZoo or the named module is not installed.
        ValueError: if there is no environment of that name.
    """
    pettingzoo = need("pettingzoo", "multiagent", "a game of several agents")
    name = name.removeprefix(PETTINGZOO)
    if "/" in name:
        for kind in ("parallel", "aec"):
            if name in getattr(pettingzoo, f"{kind}_registry", {}):
                return functools.partial(pettingzoo.make, kind, name)
        raise ValueError(f"PettingZoo has no environment {name!r} in its registry; {EXPECTED}")
    module = importlib.import_module(name)
    make = getattr(module, "parallel_env", None) or getattr(module, "env", None)
    if make is None:
        raise ValueError(f"the module {name} has neither parallel_env nor env; {EXPECTED}")
    found: Callable[..., Any] = make
    return found


def _copies(env: Any, n_games: int) -> list[Any]:
    try:
        return [copy.deepcopy(env) for _ in range(n_games)]
    except Exception as error:
        raise ValueError(
            f"{env} cannot be copied for every member of a group ({type(error).__name__}: {error}); pass a function "
            "that makes it: GRPO(policy, lambda: my_env())"
        ) from error
