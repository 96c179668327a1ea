"""The agent for PettingZoo: one learner for each role, and the games that they play together."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Mapping, Sequence
from os import PathLike
from typing import IO, Any

import numpy as np
import torch

from grpo_gym import arguments
from grpo_gym.acting import remembers
from grpo_gym.agent import ARGUMENTS, GRPO
from grpo_gym.callbacks import BaseCallback
from grpo_gym.checkpoint import read_checkpoint, write_checkpoint
from grpo_gym.groups import plan
from grpo_gym.marl_games import is_pettingzoo, make_games, mask_of, without_mask
from grpo_gym.marl_league import League
from grpo_gym.marl_learners import compare_players, make_learner, seed_of
from grpo_gym.marl_records import Tick
from grpo_gym.marl_roles import Roles, find_roles
from grpo_gym.marl_rollout import GameCollector
from grpo_gym.marl_state import checkpoint_of_all, restore_all, roles_of
from grpo_gym.policy import MlpPolicy
from grpo_gym.state import stored_arguments
from grpo_gym.update import UpdateSettings

ONLY = {
    "n_steps": (None, "games are played whole"),
    "n_workers": (1, "games are played in this process"),
    "collector": ("processes", "games are played in this process"),
    "max_resamples": (0, "the players of a game need not tie together"),
    "kl_coef": (0.0, "its policies keep no reference"),
    "reward_functions": (None, "rewards are each player's own"),
    "adapter_rank": (None, "its policies learn as a whole"),
}
"""Arguments of `GRPO` that have one value here, and why."""


class MultiGRPO(GRPO):
    """Group Relative Policy Optimization for PettingZoo. `GRPO("MlpPolicy", parallel_env)` makes one.

    The games of a group start from one seed; each player is compared with the same player in the other games of its
    group, and with no other. A policy learns from all of its players.

    Every policy is trained by a `GRPO` of its own, `learners[name]`, with the arguments given here.

    Args:
        policy: see `GRPO`.
        env: a `ParallelEnv` or `AECEnv`, which is copied; a function or class that makes one; or a name:
            "pettingzoo:mpe2.simple_spread_v3". None only to use a loaded agent without training it.
        policy_groups: the players of each policy, `{"adversary": ["adversary_0"], "good": [...]}`; None for one policy
            for all players with equal spaces.
        team_reward: every player gets the sum of what all get.
        agent_identity: tell a policy which of its players it plays: a one-hot code after the flattened observation.
        league_share: share of the groups in which one player (of several policies: one policy) learns against earlier
            selves; in the others all players are of the present and learn. The opponents of a group are the same in
            all of its games, and so is their noise.
        league_size: earlier selves that are kept; see `marl_league.League`.
        league_every: iterations between two that are added; the first is the start.
        **options: the arguments of `GRPO`. Of `n_steps`, `n_workers`, `collector` and `max_resamples` only the
            defaults are possible.

    Raises:
        ValueError, TypeError: at construction, for what cannot work; the message says how to mend it.

    Attributes:
        roles: who is played by which policy.
        learners: the agent of each policy, by its name.
        num_timesteps: environment steps: one for all players that act at once, one for each turn.
        num_agent_steps: actions, which SuperSuit's users count as steps.
    """

    def __init__(
        self,
        policy: str | type[MlpPolicy],
        env: Any,
        *,
        policy_groups: Mapping[str, Sequence[str]] | None = None,
        team_reward: bool = False,
        agent_identity: bool = False,
        league_share: float = 0.0,
        league_size: int = 10,
        league_every: int = 10,
        _roles: Roles | None = None,
        **options: Any,
    ):
        super().__init__(policy, None, **options)
        for name, (only, why) in ONLY.items():
            if getattr(self, name) != only:
                raise ValueError(f"{name}={getattr(self, name)!r} is not for several agents: {why}; leave it {only!r}")
        if remembers(self.policy_class):
            raise ValueError(f"policy={policy!r} has a memory, which is not for several agents: use one without")
        arguments.number("league_share", league_share, 0.0, 1.0)
        arguments.whole("league_size", league_size, 1)
        arguments.whole("league_every", league_every, 1)
        self.policy_groups, self.team_reward, self.agent_identity = policy_groups, team_reward, agent_identity
        self.league_share, self.league_size, self.league_every = league_share, league_size, league_every
        self.league = League(league_share, league_size, league_every)
        self.num_agent_steps = 0
        self.stage: GameCollector | None = None
        self._of_league: dict[str, float] = {}
        if env is not None:
            self.stage = self._make_stage(env)
        roles = _roles if self.stage is None else self.stage.roles
        if roles is None:
            raise ValueError("env=None: expected a PettingZoo environment, which tells the players and their spaces")
        self.roles = _roles or roles
        if self.stage is not None:
            self._require_same_roles(self.stage)
        own = {name: value for name, value in options.items() if name not in ("tensorboard_log", "verbose")}
        self.learners = {name: make_learner(policy, role, own) for name, role in self.roles.by_name.items()}
        self.set_random_seed(self.seed)

    @classmethod
    def plays(cls, env: Any) -> bool:
        """See `GRPO.plays`."""
        return is_pettingzoo(env)

    @property
    def env(self) -> Any:
        """What plays the games, or None; its `games` have PettingZoo's environments."""
        return self.stage

    def set_env(self, env: Any, force_reset: bool = True) -> None:
        """Play another game with the same players and spaces.

        Raises:
            ValueError: if they differ; both are named.
        """
        stage = self._make_stage(env)
        self._require_same_roles(stage)
        if self.stage is not None:
            self.stage.close()
        self.stage = stage

    def _make_stage(self, env: Any) -> GameCollector:
        games = make_games(env, self.n_envs)
        roles = find_roles(games[0], self.policy_groups, self.agent_identity)
        name = env if isinstance(env, str) else str(games[0].env)
        return GameCollector(games, roles, self.max_episode_steps, self.team_reward, name)

    def _require_same_roles(self, stage: GameCollector) -> None:
        if list(stage.roles.by_name.values()) != list(self.roles.by_name.values()):
            raise ValueError(f"{stage.name} has the players {stage.roles}, but the agent was made for {self.roles}")

    def set_random_seed(self, seed: int | None = None) -> None:
        """See `GRPO.set_random_seed`; each learner's streams follow from the seed and the name of its policy."""
        super().set_random_seed(seed)
        for name, learner in self.learners.items():
            if seed is None:
                learner.set_random_seed(None)
                continue
            learner.set_random_seed(seed_of(seed, name))

    def _settings(self) -> UpdateSettings:
        """See `GRPO._settings`; the learners resolve their own at the same moment."""
        for learner in self.learners.values():
            learner.num_timesteps, learner._total_timesteps = self.num_timesteps, self._total_timesteps
        self._of_learners = {name: learner._settings() for name, learner in self.learners.items()}
        return super()._settings()

    # An iteration, which `GRPO.learn` only hands on, is here one of GRPO's for each policy.
    def _collect(self, hooks: BaseCallback) -> Any:
        """Play an iteration: for each policy what `GRPO._collect` returns, or None if a callback ended it."""

        def on_step(tick: Tick) -> bool:
            self.num_timesteps += tick.n_steps
            self.ep_info_buffer.extend(info["episode"] for info in tick.infos if info)
            hooks.update_locals({"infos": tick.infos, "dones": tick.dones, "n_steps": tick.n_steps})
            return hooks.on_step()

        assert self.stage is not None
        hooks.on_rollout_start()
        policies = {name: learner.policy for name, learner in self.learners.items()}
        self.league.enlist(policies, self._iterations, self._plan_rng)
        sides = list(self.learners) if len(self.learners) > 1 else list(*(role.agents for role in self.roles))
        casts = self.league.cast(self.n_groups, sides, self._plan_rng)
        actors = {name: policy.actor() for name, policy in policies.items()}
        games = self.stage.collect(actors, plan(self._plan_rng, self.n_groups, self.group_size), casts, on_step)
        if games is None:
            return None
        self.num_agent_steps += games.n_agent_steps
        self._of_league = self.league.rate(casts, games.episodes)
        parts = {name: compare_players(self.learners[name], one) for name, one in games.experience.items()}
        self._seconds_comparing = sum(self.learners[name]._seconds_comparing for name in parts)
        hooks.on_rollout_end()
        if not self._warned_of_starts and self.stage.unequal_start is not None:
            self._warned_of_starts = True
            warnings.warn(
                f"{self.stage.name}: reset(seed={self.stage.unequal_start}) does not repeat the start. The games of a "
                "group are compared all the same, which is noisier; make the environment draw its start from its own "
                "seeded generator",
                stacklevel=3,
            )
        return parts

    def _improve(self, iteration: Any, settings: UpdateSettings) -> dict[str, float]:
        """Change each policy by what its players taught."""
        metrics: dict[str, float] = {"n_updates": 0}
        for name, part in iteration.items():
            own = self.learners[name]._improve(part, self._of_learners[name])
            metrics["n_updates"] += own.pop("n_updates", 0)
            metrics.update({f"{name}/{key}": value for key, value in own.items()})
        return metrics

    def _advantages(self, iteration: Any) -> torch.Tensor:
        return torch.cat([compared.advantages[rollout.mask] for rollout, compared, _ in iteration.values()])

    def _stats(self, iteration: Any, metrics: dict[str, float], settings: UpdateSettings) -> dict[str, float]:
        """Record what docs/log_keys.md lists, for each policy: "train/loss" of "good" is "train/good/loss"."""
        stats = {"time/total_agent_steps": float(self.num_agent_steps), **self._of_league}
        for name, part in iteration.items():
            own = {key.partition("/")[2]: x for key, x in metrics.items() if key.startswith(f"{name}/")}
            lengths, rewards = part[0].lengths, part[0].rewards.double().sum(dim=0)
            own_stats = self.learners[name]._stats(part, own, self._of_learners[name])
            own_stats["rollout/player_rew_mean"] = rewards[lengths > 0].mean().item()
            for key, value in own_stats.items():
                section, _, rest = key.partition("/")
                stats[f"{section}/{name}/{rest}" if len(self.learners) > 1 else key] = value
        return stats

    def predict(
        self,
        observation: Any,
        state: Any = None,
        episode_start: Any = None,
        deterministic: bool = False,
        action_masks: Any = None,
        agent: str | None = None,
    ) -> tuple[Any, Any]:
        """Choose actions, for one player or for several.

        Args:
            observation: of one player, or a batch `[n, ...]`, as the environment gives it: a mask in it is heeded. Or
                a dict with one for each of some players, such as `ParallelEnv.reset` returns.
            state: handed back unchanged: these policies have no memory.
            episode_start: ignored for the same reason.
            deterministic: the most probable action instead of a drawn one.
            action_masks: legal actions, where they are not in the observation; a dict if the observations are one.
            agent: whose observation it is; needed where there are several policies, or players with an identity.

        Returns:
            `(actions, state)`: the actions are a dict if the observations are one.
        """
        if agent is None and isinstance(observation, dict) and all(self.roles.knows(name) for name in observation):
            masks = action_masks or {}
            actions = {
                name: self.predict(one, None, None, deterministic, masks.get(name), name)[0]
                for name, one in observation.items()
            }
            return actions, state
        if agent is None:
            if len(self.learners) > 1 or self.agent_identity:
                raise ValueError(f"predict needs to know whose observation it is: agent=one of {self.roles}")
            agent = next(iter(self.roles)).agents[0]
        role = self.roles.of(agent)
        masks = mask_of(observation, None) if action_masks is None else action_masks
        seen = without_mask(observation)
        if self.agent_identity:
            single = np.shape(seen) == role.space.shape
            seen = role.see(agent, seen) if single else np.stack([role.see(agent, one) for one in seen])
        actions, _ = self.learners[role.name].predict(seen, deterministic=deterministic, action_masks=masks)
        return actions, state

    def get_parameters(self) -> dict[str, dict[str, Any]]:
        """Return what `GRPO.get_parameters` does of each learner, by the name of its policy."""
        return {name: learner.get_parameters() for name, learner in self.learners.items()}

    def set_parameters(
        self, load_path_or_dict: Any, exact_match: bool = True, device: str | torch.device = "auto"
    ) -> None:
        """Load weights and optimiser states, in place.

        Args:
            load_path_or_dict: what `get_parameters` returns, or a file that `save` wrote.
            exact_match: require all policies, both entries of each, and the same tensors.
            device: where a file's tensors are read to.

        Raises:
            ValueError: if names or shapes do not fit.
        """
        given = load_path_or_dict
        if not isinstance(given, dict):
            given = MultiGRPO.load(given, device=device).get_parameters()
        if set(given) - set(self.learners) or (exact_match and set(given) != set(self.learners)):
            raise ValueError(f"the parameters are those of {sorted(given)}, expected {sorted(self.learners)}")
        for name, parameters in given.items():
            self.learners[name].set_parameters(parameters, exact_match)

    def save(
        self,
        path: str | PathLike[str] | IO[bytes],
        exclude: Sequence[str] | None = None,
        include: Sequence[str] | None = None,
    ) -> None:
        """See `GRPO.save`: all policies, and the league, in one file."""
        write_checkpoint(path, checkpoint_of_all(self, MULTI_ARGUMENTS, exclude or ()))

    def export(self, path: str | PathLike[str], action_masks: bool = False) -> None:
        """See `GRPO.export`: the one policy there is; of several each is exported by itself.

        With `agent_identity` it takes observations as the policy sees them, see `marl_roles.Role.see`.

        Raises:
            ValueError: if there are several, or it cannot be exported.
        """
        if len(self.learners) > 1:
            each = ", ".join(f"agent.learners[{name!r}].export(path)" for name in self.learners)
            raise ValueError(f"a file holds one policy, and these are {len(self.learners)}: use {each}")
        next(iter(self.learners.values())).export(path, action_masks)

    @classmethod
    def load(
        cls,
        path: str | PathLike[str] | IO[bytes],
        env: Any = None,
        device: str | torch.device = "auto",
        custom_objects: dict[str, Any] | None = None,
        print_system_info: bool = False,
        force_reset: bool = True,
        **kwargs: Any,
    ) -> MultiGRPO:
        """See `GRPO.load`, which may be called for these files too."""
        checkpoint = read_checkpoint(path, custom_objects=custom_objects)
        if print_system_info:
            print(checkpoint.system_info)
        given = {**(custom_objects or {}), **kwargs}
        roles = roles_of(checkpoint, path)
        agent = cls(env=env, device=device, _roles=roles, **stored_arguments(checkpoint, given, path))
        restore_all(agent, checkpoint, path)
        if "seed" in given:
            agent.set_random_seed(given["seed"])
        return agent


_OWN = [name for name, p in inspect.signature(MultiGRPO.__init__).parameters.items() if p.kind is p.KEYWORD_ONLY]
MULTI_ARGUMENTS = (*ARGUMENTS, *(name for name in _OWN if name != "_roles"))
"""The constructor's arguments, each an attribute of the same name."""
