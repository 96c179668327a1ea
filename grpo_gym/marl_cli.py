"""The command line for PettingZoo's games: the same commands, for environments named "pettingzoo:..."."""

from __future__ import annotations

import ast
import dataclasses
import functools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch

from grpo_gym.extras import need
from grpo_gym.marl_agent import MultiGRPO
from grpo_gym.marl_evaluation import play_games
from grpo_gym.marl_games import PETTINGZOO, find_maker, make_games

tyro = need("tyro", "cli", "the command line")

Positional = tyro.conf.Positional


def game_commands(options: type) -> dict[str, Callable[..., None]]:
    """Make the commands for games of several players.

    Args:
        options: a dataclass of the arguments of `GRPO`, as the command line reads them.
    """

    def train(
        env: Annotated[str, Positional],
        options: Any,
        policy_groups: str = "None",
        team_reward: bool = False,
        agent_identity: bool = False,
        league_share: float = 0.0,
        league_size: int = 10,
        league_every: int = 10,
        total_timesteps: float = 100_000,
        output: str = "",
        log_interval: int = 10,
        env_kwargs: str = "{}",
        threads: int = 1,
    ) -> None:
        """Train the players of a game, save them, and print what each earns on seeds that training never saw.

        Args:
            env: "pettingzoo:" and a module or an id, such as pettingzoo:mpe2.simple_spread_v3.
            options: arguments of GRPO.
            policy_groups: the players of each policy, as a Python dictionary of lists; None for one policy for all
                players with equal spaces.
            team_reward: every player gets the sum of what all get.
            agent_identity: tell a policy which of its players it plays.
            league_share: share of the groups that are played against earlier selves.
            league_size: earlier selves that are kept.
            league_every: iterations between two that are added.
            total_timesteps: environment steps to take.
            output: file for the agent; runs/<env>.zip if not given.
            log_interval: iterations between two points of the log.
            env_kwargs: arguments of the environment, as a Python dictionary.
            threads: of torch; networks as small as these are fastest with one.
        """
        torch.set_num_threads(threads)
        arguments: dict[str, Any] = {field.name: getattr(options, field.name) for field in dataclasses.fields(options)}
        arguments["policy_kwargs"] = _literal("policy_kwargs", arguments["policy_kwargs"])
        make = _maker(env, env_kwargs)
        agent = MultiGRPO(
            env=make,
            policy_groups=_literal("policy_groups", policy_groups),
            team_reward=team_reward,
            agent_identity=agent_identity,
            league_share=league_share,
            league_size=league_size,
            league_every=league_every,
            **arguments,
        )
        print(f"{env}: {agent.roles}")
        agent.learn(total_timesteps, progress_bar=True, log_interval=log_interval)
        path = Path(output or f"runs/{re.sub(r'[^A-Za-z0-9.-]+', '-', env.removeprefix(PETTINGZOO))}.zip")
        agent.save(path)
        _score(agent, env, make, 20, 0, True)
        print(f"saved {path}; watch it:  grpo-gym play {path} {env}")

    train.__annotations__["options"] = tyro.conf.OmitArgPrefixes[options]
    return {"train": train, "evaluate": evaluate, "play": play}


def evaluate(
    agent: Annotated[str, Positional],
    env: Annotated[str, Positional],
    n_eval_episodes: int = 20,
    first_seed: int = 0,
    stochastic: bool = False,
    env_kwargs: str = "{}",
) -> None:
    """Play whole games, all players by a saved agent, and print what each earns.

    Args:
        agent: file that `train` or `MultiGRPO.save` wrote.
        env: "pettingzoo:" and a module or an id.
        n_eval_episodes: games, each with a seed of its own.
        first_seed: seeds are this and the following ones; training never uses any below 2**24.
        stochastic: draw actions instead of taking the most probable ones.
        env_kwargs: arguments of the environment, as a Python dictionary.
    """
    _score(MultiGRPO.load(agent), env, _maker(env, env_kwargs), n_eval_episodes, first_seed, not stochastic)


def play(
    agent: Annotated[str, Positional],
    env: Annotated[str, Positional],
    episodes: int = 3,
    first_seed: int = 0,
    env_kwargs: str = "{}",
) -> None:
    """Watch a saved agent play all players: in a window where the environment has one, else as text.

    Args:
        agent: file that `train` or `MultiGRPO.save` wrote.
        env: "pettingzoo:" and a module or an id.
        episodes: how many.
        first_seed: seeds are this and the following ones.
        env_kwargs: arguments of the environment, as a Python dictionary.
    """
    model, make = MultiGRPO.load(agent), _maker(env, env_kwargs)
    probe = make()
    modes = probe.metadata.get("render_modes", [])
    probe.close()
    mode = next((m for m in ("human", "ansi") if m in modes), None)
    if mode is None:
        raise ValueError(f"{env} can render {modes}, expected 'human' or 'ansi'; 'grpo-gym evaluate' prints its score")
    (game,) = make_games(functools.partial(make, render_mode=mode), 1)
    for seed in range(first_seed, first_seed + episodes):
        game.start(seed)
        totals: dict[str, float] = {}
        while game.asks:
            asked = ((ask.observation, None, None, True, ask.mask, ask.agent) for ask in game.asks)
            game.act([np.asarray(model.predict(*one)[0]).tolist() for one in asked])
            for name, reward in game.rewards:
                totals[name] = totals.get(name, 0.0) + reward
            if mode == "ansi":
                print(game.env.render(), "\n")
        print(f"seed {seed}: " + ", ".join(f"{name} {total:g}" for name, total in totals.items()))
    game.env.close()


def _maker(env: str, env_kwargs: str) -> Callable[..., Any]:
    return functools.partial(find_maker(env), **_literal("env_kwargs", env_kwargs))


def _literal(name: str, text: str) -> Any:
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        value = text
    if not (isinstance(value, dict) or (value is None and name == "policy_groups")):
        raise ValueError(f"{name}={text!r} is not a Python dictionary, such as {{'good': ['agent_0', 'agent_1']}}")
    return value


def _score(
    agent: MultiGRPO, env: str, make: Callable[..., Any], n_games: int, first_seed: int, deterministic: bool
) -> None:
    games = play_games(make, agent, n_games, first_seed, deterministic)
    print(f"{env}: over {n_games} games")
    for name in sorted({name for game in games for name in game}):
        own = [game[name] for game in games if name in game]
        print(f"  {name}: score {np.mean(own):.2f} ± {np.std(own):.2f}")
