"""The command line: train, evaluate and play agents, check environments; `train` has all options of `GRPO`."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
import shlex
import sys
import typing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Union

import gymnasium as gym
import numpy as np
import torch

from grpo_gym.agent import ARGUMENTS, GRPO
from grpo_gym.checkpoint import checkpoint_path, read_checkpoint
from grpo_gym.doctor import check_group_env
from grpo_gym.evaluation import evaluate_policy
from grpo_gym.extras import need
from grpo_gym.faults import is_explained
from grpo_gym.logger import latest_run_folder, new_run_folder
from grpo_gym.marl_cli import game_commands
from grpo_gym.marl_games import PETTINGZOO
from grpo_gym.recipes import RECIPES, find
from grpo_gym.state import checkpoint_of, stored_arguments
from grpo_gym.unfinished import Keeper, newest
from grpo_gym.variants import VARIANTS
from grpo_gym.vec import find_spec

tyro = need("tyro", "cli", "the command line")
docstring_parser = need("docstring_parser", "cli", "the command line")

HIDDEN = ("env", "reward_functions", "_init_setup_model")
"""Arguments of `GRPO` that are no options of `train`."""

DEFAULTS: dict[str, Any] = {
    **{name: parameter.default for name, parameter in inspect.signature(GRPO.__init__).parameters.items()},
    "policy": "MlpPolicy",
    "policy_kwargs": {},
}

Positional = tyro.conf.Positional


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line.

    Args:
        arguments: the words after `grpo-gym`; those of the process if None.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    env = next((word for word in words if find(word)), "") if words[:1] == ["train"] else ""
    commands = {
        "train": _train_command(words, env),
        "evaluate": evaluate,
        "play": play,
        "doctor": doctor,
        "recipes": recipes,
    }
    if any(word.startswith(PETTINGZOO) for word in words):
        commands.update(game_commands(_options({})))
    try:
        tyro.extras.subcommand_cli_from_dict(commands, prog="grpo-gym", args=words, description=__doc__)
    except (ValueError, TypeError, OSError, ImportError, gym.error.Error) as error:
        if is_explained(error):  # it came out of the middle of training: where is worth more than a short answer
            raise
        sys.exit(f"grpo-gym: {error}")


def evaluate(
    agent: Annotated[str, Positional],
    env: Annotated[str, Positional],
    n_eval_episodes: int = 20,
    first_seed: int = 0,
    stochastic: bool = False,
    env_kwargs: str = "{}",
) -> None:
    """Play whole episodes with a saved agent and print its score.

    Args:
        agent: file that `train` or `GRPO.save` wrote.
        env: environment id, such as CartPole-v1 or grpo_envs:grpo/Battleship-v0.
        n_eval_episodes: episodes, each with a seed of its own.
        first_seed: seeds are this and the following ones; training never uses any below 2**24.
        stochastic: draw actions instead of taking the most probable ones.
        env_kwargs: arguments of the environment, as a Python dictionary.
    """
    _play(GRPO.load(agent), env, _dictionary("env_kwargs", env_kwargs), n_eval_episodes, first_seed, not stochastic)


def play(
    agent: Annotated[str, Positional],
    env: Annotated[str, Positional],
    episodes: int = 3,
    first_seed: int = 0,
    env_kwargs: str = "{}",
) -> None:
    """Watch a saved agent: in a window where the environment has one, else as text.

    Args:
        agent: file that `train` or `GRPO.save` wrote.
        env: environment id, such as CartPole-v1 or grpo_envs:grpo/Battleship-v0.
        episodes: how many.
        first_seed: seeds are this and the following ones.
        env_kwargs: arguments of the environment, as a Python dictionary.
    """
    model, kwargs = GRPO.load(agent), _dictionary("env_kwargs", env_kwargs)
    with gym.make(env, **kwargs) as probe:
        modes = probe.metadata.get("render_modes", [])
    mode = next((m for m in ("human", "ansi") if m in modes), None)
    if mode is None:
        raise ValueError(f"{env} can render {modes}, expected 'human' or 'ansi'; 'grpo-gym evaluate' prints its score")
    watched = gym.make(env, render_mode=mode, **kwargs)
    for seed in range(first_seed, first_seed + episodes):
        observation, info = watched.reset(seed=seed)
        total, done, state = 0.0, False, None
        while not done:
            mask = info.get("action_mask")
            action, state = model.predict(observation, state, deterministic=True, action_masks=mask)
            observation, reward, terminated, truncated, info = watched.step(action)
            total, done = total + float(reward), terminated or truncated
            if mode == "ansi":
                print(watched.render(), "\n")
        print(f"seed {seed}: return {total:g}")
    watched.close()


def doctor(
    env: Annotated[str, Positional],
    n_groups: int = 8,
    group_size: int = 8,
    seed: int = 0,
    max_episode_steps: int = 1000,
    gamma: float = 0.99,
    env_kwargs: str = "{}",
) -> None:
    """Try whether an environment suits groups: do its seeds repeat, what is a good baseline, what is wrong with it.

    Args:
        env: environment id, such as CartPole-v1 or grpo_envs:grpo/Battleship-v0.
        n_groups: groups of random play.
        group_size: episodes of a group.
        seed: of the starts and the actions.
        max_episode_steps: longer episodes are cut; a smaller number makes it faster.
        gamma: discount in the comparison of baselines.
        env_kwargs: arguments of the environment, as a Python dictionary.
    """
    spec = find_spec(env)
    spec.kwargs.update(_dictionary("env_kwargs", env_kwargs))
    print(check_group_env(spec, n_groups, group_size, seed, max_episode_steps, gamma))


def recipes() -> None:
    """List the environments that the package has tuned arguments for."""
    for env_id, recipe in RECIPES.items():
        settings = ", ".join(f"{name}={value!r}" for name, value in recipe.arguments.items())
        print(f"{env_id}  ({recipe.total_timesteps:,} steps)\n    {settings}")


def _variant_in(words: Sequence[str]) -> dict[str, Any]:
    """Return the arguments of the variant that is asked for: defaults, as the recipe's are."""
    asked = re.search(r"--variant[= ](\S+)", " ".join(words))
    found = VARIANTS.get(asked[1], {}) if asked else {}
    return {name: value for name, value in found.items() if name != "policy_kwargs"}  # joined by the agent


def _train_command(words: list[str], env_id: str, start: Path | None = None) -> Callable[..., None]:
    """Make the `train` command, its options' defaults those of the environment's recipe, or of the agent to resume.

    Args:
        words: the whole command.
        env_id: of an environment with a recipe, or "".
        start: the agent's file; None to begin anew.
    """
    recipe = find(env_id)
    defaults: dict[str, Any] = {**(recipe.arguments if recipe else {}), **_variant_in(words)}
    wanted, done, ordinary = recipe.total_timesteps if recipe else 100_000, 0, "GRPO's defaults"
    if start is not None:
        stored = read_checkpoint(start)
        defaults = stored_arguments(stored, {}, start)
        wanted, done = (stored.data["counters"][name] for name in ("_total_timesteps", "num_timesteps"))
        ordinary = "as before"
    options = _options(defaults)

    def train(
        env: Annotated[str, Positional],
        options: Any,
        total_timesteps: float = wanted,
        output: str = "",
        resume: bool = False,
        save_every: float = 0,
        log_interval: int = 10,
        env_kwargs: str = "{}",
        threads: int = 1,
    ) -> None:
        """Train an agent, save it, and print its score on seeds that training never saw.

        Args:
            env: environment id, such as CartPole-v1 or grpo_envs:grpo/Battleship-v0.
            options: arguments of GRPO.
            total_timesteps: environment steps to take.
            output: file for the agent; runs/<env>.zip if not given.
            resume: go on with the last run that was stopped, whatever stopped it; from the start if there is none.
                Options that are not given again are as they were.
            save_every: environment steps after which an unfinished run is saved, in a folder beside the output; 0
                for a fiftieth of total_timesteps.
            log_interval: iterations between two points of the log.
            env_kwargs: arguments of the environment, as a Python dictionary.
            threads: of torch; networks as small as these are fastest with one.
        """
        spec = find_spec(env)
        path = checkpoint_path(output or f"runs/{re.sub(r'[^A-Za-z0-9.-]+', '-', spec.id)}")
        folder = latest_run_folder(path.parent, path.stem) if resume else None
        if resume and start is None:
            found = newest(folder) if folder else (path if path.exists() else None)
            if found is not None:  # its arguments become the defaults
                tyro.cli(_train_command(words, env_id, found), prog="grpo-gym train", args=words[1:])
                return
            print(f"nothing to resume beside {path}: starting anew")
        torch.set_num_threads(threads)
        arguments: dict[str, Any] = {field.name: getattr(options, field.name) for field in dataclasses.fields(options)}
        arguments["policy_kwargs"] = _dictionary("policy_kwargs", arguments["policy_kwargs"])
        kwargs = _dictionary("env_kwargs", env_kwargs)
        spec.kwargs.update(kwargs)
        usual = DEFAULTS if start is None else {**DEFAULTS, **defaults}
        changed = {name: value for name, value in arguments.items() if value != usual[name]}
        if start is None:
            print(f"{env}: " + (f"recipe for {recipe.total_timesteps:,} steps" if recipe else "no recipe, defaults"))
            agent = GRPO(env=spec, **arguments)
        else:
            print(f"{env}: resuming {start}, {done:,} of {total_timesteps:,.0f} steps done")
            agent = GRPO.load(start, spec, **changed)
        print("  " + (", ".join(f"{name}={value!r}" for name, value in changed.items()) or ordinary))
        keeper = Keeper(
            folder or new_run_folder(path.parent, path.stem),
            save_every or total_timesteps / 50,
            lambda: checkpoint_of(agent, ARGUMENTS, ()),
        )
        with keeper.until_done(shlex.join(["grpo-gym", *words, *["--resume"] * (not resume)])):
            if start is None or done < total_timesteps:
                agent.learn(
                    total_timesteps - done,
                    keeper,
                    log_interval=log_interval,
                    reset_num_timesteps=start is None,
                    progress_bar=True,
                )
            agent.save(path)
        _play(agent, env, kwargs, n_eval_episodes=20, first_seed=0, deterministic=True)
        print(f"saved {path}; watch it:  grpo-gym play {path} {env}")
        if agent.tensorboard_log is not None:
            print(f"curves:  tensorboard --logdir {agent.tensorboard_log}")

    train.__annotations__["options"] = tyro.conf.OmitArgPrefixes[options]
    return train


def _options(recipe: dict[str, Any]) -> type:
    """Make a dataclass of the constructor's arguments, which the command line reads as options."""
    parameters = docstring_parser.parse(GRPO.__doc__ or "").params
    described = {p.arg_name: " ".join((p.description or "").split()) for p in parameters}
    hints = typing.get_type_hints(GRPO.__init__)
    fields = []
    for name in ARGUMENTS:
        if name in HIDDEN:
            continue
        default = recipe.get(name, DEFAULTS[name])
        kind = str if name == "policy_kwargs" else _readable(hints[name])
        default = repr(default) if name == "policy_kwargs" else default
        help_text = tyro.conf.arg(help=described.get(name, ""))
        fields.append((name, Annotated[kind, help_text], dataclasses.field(default=default)))
    return dataclasses.make_dataclass("Options", fields, frozen=True)


def _readable(hint: Any) -> Any:
    """Leave only what can be typed: numbers, texts, switches, None."""
    kept = [kind for kind in typing.get_args(hint) if kind in (int, float, str, bool, type(None))]
    return Union[tuple(kept)] if kept else (hint if hint in (int, float, str, bool) else str)  # noqa: UP007


def _dictionary(name: str, text: str) -> dict[str, Any]:
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        value = None
    if not isinstance(value, dict):
        raise ValueError(f"{name}={text!r} is not a Python dictionary, such as {{'net_arch': [64, 64]}}")
    return value


def _play(
    agent: GRPO, env: str, kwargs: dict[str, Any], n_eval_episodes: int, first_seed: int, deterministic: bool
) -> None:
    rewards, lengths = evaluate_policy(
        agent,
        lambda: gym.make(env, **kwargs),
        deterministic=deterministic,
        return_episode_rewards=True,
        seeds=range(first_seed, first_seed + n_eval_episodes),
    )
    print(
        f"{env}: score {np.mean(rewards):.2f} ± {np.std(rewards):.2f} over {n_eval_episodes} episodes, "
        f"mean length {np.mean(lengths):.1f}"
    )


if __name__ == "__main__":
    main()
