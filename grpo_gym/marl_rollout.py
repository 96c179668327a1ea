"""Play games of several agents, and write down one trajectory for each player of each game."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from grpo_gym.acting import Actor
from grpo_gym.episodes import TrajectoryRecorder
from grpo_gym.groups import Jobs, Plan, episode_noise
from grpo_gym.marl_games import Ask, End, Game
from grpo_gym.marl_roles import Role, Roles, own_noise
from grpo_gym.types import DEFAULT_HORIZON, Array, BoolArray, FloatArray, Rollout, Step


@dataclass(frozen=True)
class Cast:
    """Who plays in the games of one group, the same in all of them.

    Attributes:
        side: who learns, a player if there is one policy and a policy if there are several; None if all do.
        opponents: what acts for the others, for each policy; it does not learn.
        opponent: number of the league's member that the others are; −1 for none.
    """

    side: str | None = None
    opponents: Mapping[str, Actor] = field(default_factory=dict)
    opponent: int = -1

    def learns(self, agent: str, role: Role) -> bool:
        """Tell whether a player is played by the policy that learns."""
        return self.side is None or self.side == (role.name if len(self.opponents) > 1 else agent)


class Episode(NamedTuple):
    """What a game came to.

    Attributes:
        group: number of its group in the plan.
        returns: of each player that acted, not discounted.
        learning: those of them that the learning policies played.
        n_steps: environment steps.
    """

    group: int
    returns: dict[str, float]
    learning: tuple[str, ...]
    n_steps: int


class Experience(NamedTuple):
    """What an iteration gives to one policy.

    Attributes:
        rollout: a trajectory for each player and game. Its groups are those of (seed, player): the same player in
            the members of a group of games. A player that a game never had has an empty trajectory there.
        agents: the player of each of its groups, those of one player side by side.
    """

    rollout: Rollout
    agents: list[str]


class Games(NamedTuple):
    """What an iteration's games came to: for each policy, and one by one. `n_agent_steps` counts actions."""

    experience: dict[str, Experience]
    episodes: list[Episode]
    n_agent_steps: int


class Tick(NamedTuple):
    """What happened in one step of the games that were in play, as callbacks are told.

    Attributes:
        n_steps: environment steps, one for each game.
        infos: a dictionary a game; that of an ended one has `"episode": {"r", "l", "returns"}`.
        dones: the game is over, `[k]`.
    """

    n_steps: int
    infos: list[dict[str, Any]]
    dones: BoolArray


@dataclass
class _Player:
    """A player in one game.

    What comes to a player belongs to the last thing it did: `credit[at]` is that action's reward.
    """

    agent: str
    role: Role
    actor: Actor
    row: int
    noise_seed: int
    n_actions: int = 0
    total: float = 0.0
    seen: Array = field(default_factory=lambda: np.zeros(0))
    credit: FloatArray = field(default_factory=lambda: np.zeros(1, np.float32))
    at: int = 0
    end: End | None = None


@dataclass
class _Table:
    """A game in play, as one member of one group."""

    game: Game
    group: int = 0
    member: int = 0
    n_steps: int = 0
    players: dict[str, _Player] = field(default_factory=dict)


class _Record:
    """The trajectories of one policy's players. Number `k·P + g` is player k in group g of the plan."""

    def __init__(self, role: Role, plan: Plan):
        self.role, self.plan = role, plan
        self.steps = TrajectoryRecorder()
        self._agents = list(role.agents)
        self._members: dict[int, set[int]] = {}

    def begin(self, agent: str, group: int, member: int, noise_seed: int, starts: bool = True) -> int:
        if agent not in self._agents:
            self._agents.append(agent)
        number = self._agents.index(agent) * len(self.plan.seeds) + group
        self._members.setdefault(number, set()).add(member)
        jobs = Jobs(*(np.array([x]) for x in (number, member, self.plan.seeds[group], noise_seed)))
        return int(self.steps.begin(jobs, starts)[0])

    def end(self, row: int, terminated: bool, observation: Array) -> None:
        over = np.array([terminated])
        self.steps.end(np.array([row]), over, ~over, observation[None])

    def experience(self) -> Experience | None:
        if not self._members:
            return None
        n_groups = len(self.plan.seeds)
        nothing = np.zeros(self.role.observation_space.shape or (), self.role.observation_space.dtype)
        for number, present in list(self._members.items()):
            agent = self._agents[number // n_groups]
            for member in set(range(self.plan.group_size)) - present:
                self.end(self.begin(agent, number % n_groups, member, 0, starts=False), True, nothing)
        agents = [self._agents[number // n_groups] for number in sorted(self._members)]
        return Experience(self.steps.rollout(self.plan.group_size), agents)


class _Iteration(NamedTuple):
    """What the steps of an iteration have in common."""

    actors: Mapping[str, Actor]
    plan: Plan
    casts: Sequence[Cast]
    records: Mapping[str, _Record]


class GameCollector:
    """Plays groups of games.

    Args:
        games: as many as may be in play at once.
        roles: who is played by which policy.
        horizon: environment steps after which a game is cut; None for `DEFAULT_HORIZON`.
        team_reward: every player gets the sum of what all get.
        name: of the environment, for messages.
    """

    def __init__(self, games: Sequence[Game], roles: Roles, horizon: int | None, team_reward: bool, name: str):
        self.games, self.roles, self.team_reward, self.name = games, roles, team_reward, name
        self.horizon = horizon or DEFAULT_HORIZON
        self.unequal_start: int | None = None

    def collect(
        self,
        actors: Mapping[str, Actor],
        plan: Plan,
        casts: Sequence[Cast],
        on_step: Callable[[Tick], bool] = lambda tick: True,
    ) -> Games | None:
        """Play every game of the plan.

        Args:
            actors: what acts for each policy.
            plan: seeds of the groups, and each game's own noise.
            casts: who plays in each group.
            on_step: called after each step of the games in play; False ends it.

        Returns:
            None if `on_step` ended it.

        Raises:
            ValueError: if an observation or a reward is not finite, or no action is legal.
        """
        records = {name: _Record(role, plan) for name, role in self.roles.by_name.items()}
        of = _Iteration(actors, plan, casts, records)
        episodes: dict[int, Episode] = {}
        firsts: dict[int, dict[str, Array]] = {}
        waiting = list(range(plan.n_episodes))[::-1]
        free, playing, n_actions = list(self.games), list[_Table](), 0
        while waiting or playing:
            while waiting and free:
                table = _Table(free.pop(), *divmod(waiting.pop(), plan.group_size))
                table.game.start(int(plan.seeds[table.group]))
                self._compare_starts(table, firsts, int(plan.seeds[table.group]))
                playing.append(table)
            n_actions += sum(len(table.game.asks) for table in playing)
            for table, chosen in zip(playing, self._choose(playing, of), strict=True):
                table.game.act(chosen)
                table.n_steps += 1
                self._settle(table, plan)
            over = np.array([not table.game.asks or table.n_steps >= self.horizon for table in playing])
            infos: list[dict[str, Any]] = [{} for _ in playing]
            for i in over.nonzero()[0].tolist():
                table = playing[i]
                episode = self._finish(table, casts[table.group], records)
                episodes[table.group * plan.group_size + table.member] = episode
                mean = float(np.mean([episode.returns[agent] for agent in episode.learning or episode.returns]))
                infos[i] = {"episode": {"r": mean, "l": episode.n_steps, "returns": episode.returns}}
                free.append(table.game)
            n_steps, playing = len(playing), [table for table, done in zip(playing, over, strict=True) if not done]
            if not on_step(Tick(n_steps, infos, over)):
                return None
        found = {name: record.experience() for name, record in records.items()}
        experience = {name: one for name, one in found.items() if one is not None}
        return Games(experience, [episodes[n] for n in sorted(episodes)], n_actions)

    def close(self) -> None:
        """Close every environment."""
        for game in self.games:
            game.env.close()

    def _choose(self, playing: Sequence[_Table], of: _Iteration) -> list[list[Any]]:
        """Choose the actions of all that are asked, one pass a policy, and write down those of the learning ones."""
        chosen: list[list[Any]] = [[None] * len(table.game.asks) for table in playing]
        batches: dict[tuple[str, int], list[tuple[_Player, Ask, list[Any], int]]] = {}
        for table, into in zip(playing, chosen, strict=True):
            for i, ask in enumerate(table.game.asks):
                player = table.players.get(ask.agent) or self._seat(table, ask.agent, of)
                batches.setdefault((player.role.name, id(player.actor)), []).append((player, ask, into, i))
        for (name, _), batch in batches.items():
            first = batch[0][0]
            for player, ask, _, _ in batch:
                player.seen = player.role.see(ask.agent, ask.observation)
            observations = np.stack([player.seen for player, *_ in batch])
            masks = self._masks([ask for _, ask, *_ in batch])
            self._refuse_non_finite(observations, [ask.agent for _, ask, *_ in batch])
            seeds, counts = (np.array([getattr(p, x) for p, *_ in batch]) for x in ("noise_seed", "n_actions"))
            noise = episode_noise(seeds, counts, first.actor.noise_size)
            actions, log_probs = first.actor.act(observations, noise, masks)
            env_actions = first.actor.to_env(actions)
            sent = env_actions.tolist() if env_actions.ndim == 1 else env_actions
            credit = np.zeros(len(batch), np.float32)
            for k, (player, _, into, i) in enumerate(batch):
                into[i] = sent[k]
                player.credit, player.at = credit, k
                player.n_actions += 1
                player.end = None
            if first.row >= 0:
                rows = np.array([player.row for player, *_ in batch])
                ended = np.zeros(len(rows), np.bool_)
                step = Step(observations, credit, ended, ended, masks, (), len(rows))
                of.records[name].steps.add(rows, observations, actions, log_probs, masks, step)
        return chosen

    def _seat(self, table: _Table, agent: str, of: _Iteration) -> _Player:
        """Let a player in that is asked for the first time in its game.

        A learning player has its own noise in each game. One of the league has the same in all games of a group:
        there it is a part of the environment.
        """
        group, role = table.group, self.roles.of(agent, table.game)
        cast = of.casts[group]
        if cast.learns(agent, role):
            seed = own_noise(of.plan.noise_seeds[group * of.plan.group_size + table.member], agent)
            row = of.records[role.name].begin(agent, group, table.member, seed)
            player = _Player(agent, role, of.actors[role.name], row, seed)
        else:
            player = _Player(agent, role, cast.opponents[role.name], -1, own_noise(of.plan.seeds[group], agent))
        table.players[agent] = player
        return player

    def _settle(self, table: _Table, plan: Plan) -> None:
        """Give what came to a player to the last thing that it did."""
        game, players = table.game, table.players
        rewards = game.rewards
        if self.team_reward and rewards:
            total = sum(reward for _, reward in rewards)
            rewards = [(agent, total) for agent in players]
        for agent, reward in rewards:
            if agent not in players:  # it has not done anything yet
                continue
            if not np.isfinite(reward):
                raise ValueError(
                    f"{self.name}: the reward of {agent} is not finite ({reward}) at step {table.n_steps} of the game "
                    f"with seed {plan.seeds[table.group]}; expected finite numbers: mend the environment"
                )
            player = players[agent]
            player.credit[player.at] += reward
            player.total += float(reward)
        for end in game.ends:
            if end.agent in players:
                players[end.agent].end = end

    def _finish(self, table: _Table, cast: Cast, records: Mapping[str, _Record]) -> Episode:
        """Close the trajectories of a game that is over, or was cut."""
        asked = {ask.agent for ask in table.game.asks}
        for player in table.players.values():
            if player.row < 0:
                continue
            live = player.end is None or player.agent in asked
            if live and table.game.asks:
                seen, terminated = player.role.see(player.agent, table.game.seen_by(player.agent)), False
            elif player.end is not None:
                seen, terminated = player.role.see(player.agent, player.end.observation), player.end.terminated
            else:  # the environment forgot it
                seen, terminated = player.seen, True
            records[player.role.name].end(player.row, terminated, seen)
        learning = tuple(a for a, p in table.players.items() if cast.learns(a, p.role))
        return Episode(table.group, {a: p.total for a, p in table.players.items()}, learning, table.n_steps)

    def _masks(self, asks: Sequence[Ask]) -> BoolArray | None:
        masks = [ask.mask for ask in asks]
        if all(mask is None for mask in masks):
            return None
        for ask in asks:
            if ask.mask is None or not ask.mask.any():
                raise ValueError(
                    f"{self.name}: the action mask of {ask.agent} is {ask.mask}; expected one with every observation, "
                    "with at least one legal action"
                )
        return np.stack([mask for mask in masks if mask is not None])

    def _refuse_non_finite(self, observations: Array, agents: Sequence[str]) -> None:
        finite = np.isfinite(observations).reshape(len(observations), -1).all(axis=1)
        if not finite.all():
            bad = int(finite.argmin())
            raise ValueError(
                f"{self.name}: the observation of {agents[bad]} is not finite ({observations[bad]}); expected finite "
                "numbers: mend the environment, or replace them in a wrapper"
            )

    def _compare_starts(self, table: _Table, firsts: dict[int, dict[str, Array]], seed: int) -> None:
        """Remember the first seed whose games do not start alike."""
        game = table.game
        seen = {a.agent: np.array(self.roles.of(a.agent, game).see(a.agent, a.observation)) for a in game.asks}
        first = firsts.setdefault(table.group, seen)
        alike = seen.keys() == first.keys() and all(np.array_equal(seen[agent], first[agent]) for agent in seen)
        if not alike and self.unequal_start is None:
            self.unequal_start = seed
