"""Play games of several agents, and write down one trajectory for each player of each game."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from grpo_gym.acting import Actor
from grpo_gym.groups import Plan
from grpo_gym.marl_games import Ask, Game
from grpo_gym.marl_records import Cast, Episode, Games, Player, Record, Table, Tick
from grpo_gym.marl_roles import Roles, own_noise
from grpo_gym.noise import episode_noise
from grpo_gym.types import DEFAULT_HORIZON, Array, BoolArray, Step


class _Iteration(NamedTuple):
    """What the steps of an iteration have in common."""

    actors: Mapping[str, Actor]
    plan: Plan
    casts: Sequence[Cast]
    records: Mapping[str, Record]


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
        records = {name: Record(role, plan) for name, role in self.roles.by_name.items()}
        of = _Iteration(actors, plan, casts, records)
        episodes: dict[int, Episode] = {}
        firsts: dict[int, dict[str, Array]] = {}
        waiting = list(range(plan.n_episodes))[::-1]
        free, playing, n_actions = list(self.games), list[Table](), 0
        while waiting or playing:
            while waiting and free:
                table = Table(free.pop(), *divmod(waiting.pop(), plan.group_size))
                self._start(table, firsts, int(plan.seeds[table.group]))
                playing.append(table)
            n_actions += sum(len(table.game.asks) for table in playing)
            for table, chosen in zip(playing, self._choose(playing, of), strict=True):
                table.game.act(chosen)
                table.n_steps += 1
                self._settle(table, table.game.rewards, plan)
            over = np.array([not table.game.asks or table.n_steps >= self.horizon for table in playing])
            infos: list[dict[str, Any]] = [{} for _ in playing]
            for i in over.nonzero()[0].tolist():
                table = playing[i]
                self._settle(table, table.game.unread(), plan)
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

    def _choose(self, playing: Sequence[Table], of: _Iteration) -> list[list[Any]]:
        """Choose the actions of all that are asked, one pass a policy, and write down those of the learning ones."""
        chosen: list[list[Any]] = [[None] * len(table.game.asks) for table in playing]
        batches: dict[tuple[str, int], list[tuple[Player, Ask, list[Any], int]]] = {}
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

    def _seat(self, table: Table, agent: str, of: _Iteration) -> Player:
        """Let a player in that is asked for the first time in its game.

        A learning player has its own noise in each game. One of the league has the same in all games of a group:
        there it is a part of the environment.
        """
        group, role = table.group, self.roles.of(agent, table.game)
        cast = of.casts[group]
        if cast.learns(agent, role):
            seed = own_noise(of.plan.noise_seeds[group * of.plan.group_size + table.member], agent)
            row = of.records[role.name].begin(agent, group, table.member, seed)
            player = Player(agent, role, of.actors[role.name], row, seed)
        else:
            player = Player(agent, role, cast.opponents[role.name], -1, own_noise(of.plan.seeds[group], agent))
        table.players[agent] = player
        return player

    def _settle(self, table: Table, rewards: Sequence[tuple[str, float]], plan: Plan) -> None:
        """Give what came to a player to the last thing that it did."""
        players = table.players
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
        for end in table.game.ends:
            if end.agent in players:
                players[end.agent].end = end

    def _finish(self, table: Table, cast: Cast, records: Mapping[str, Record]) -> Episode:
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

    def _start(self, table: Table, firsts: dict[int, dict[str, Array]], seed: int) -> None:
        """Start a game, and remember the first seed whose games do not start alike."""
        game = table.game
        game.start(seed)
        if not game.asks:
            raise ValueError(f"{self.name}: the game with seed {seed} begins without any player; expected at least one")
        seen = {a.agent: np.array(self.roles.of(a.agent, game).see(a.agent, a.observation)) for a in game.asks}
        first = firsts.setdefault(table.group, seen)
        alike = seen.keys() == first.keys() and all(np.array_equal(seen[agent], first[agent]) for agent in seen)
        if not alike and self.unequal_start is None:
            self.unequal_start = seed
