import inspect
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
import torch

from grpo_gym import GRPO, check_group_env
from grpo_gym.agent import ARGUMENTS
from grpo_gym.cli import HIDDEN, main
from grpo_gym.recipes import RECIPES
from tests.agents import digest

FEW = ["--total-timesteps", "40", "--n-groups", "2", "--group-size", "2"]
BATTLESHIP = "grpo_envs:grpo/Battleship-v0"
OPTIONS = [name for name in ARGUMENTS if name not in HIDDEN]
DEFAULTS = {name: parameter.default for name, parameter in inspect.signature(GRPO.__init__).parameters.items()}
CARTPOLE = RECIPES["CartPole-v1"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def untrained(monkeypatch: pytest.MonkeyPatch) -> list[tuple[GRPO, float, dict[str, Any]]]:
    """The agents that were to learn, for how long and with what; they stay as they are."""
    asked: list[tuple[GRPO, float, dict[str, Any]]] = []

    def learn(agent: GRPO, total_timesteps: float, callback: Any, **kwargs: Any) -> GRPO:
        asked.append((agent, total_timesteps, kwargs))
        return agent

    monkeypatch.setattr(GRPO, "learn", learn)
    return asked


def option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def fails(words: list[str]) -> str:
    """Run a command that cannot work, and return what it says."""
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert isinstance(caught.value.code, str)
    assert caught.value.code.startswith("grpo-gym: ")
    return caught.value.code


# --- train -----------------------------------------------------------------------------------------------------


def test_train_learns_saves_and_prints_the_score(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["train", "CartPole-v1", *FEW, "--seed", "3", "--n-epochs", "2", "--tensorboard-log", "logs"])
    said = capsys.readouterr()
    assert "CartPole-v1: score " in said.out
    assert "over 20 episodes, mean length" in said.out
    assert "saved runs/CartPole-v1.zip; watch it:  grpo-gym play runs/CartPole-v1.zip CartPole-v1" in said.out
    assert "tensorboard --logdir logs" in said.out
    assert "step" in said.err  # the progress bar
    assert (folder / "logs" / "GRPO_1").is_dir()
    agent = GRPO.load("runs/CartPole-v1.zip")
    assert agent.num_timesteps >= 40
    assert (agent.seed, agent.n_epochs, agent.n_groups, agent.group_size) == (3, 2, 2, 2)


def test_train_makes_the_agent_that_the_same_arguments_make_in_python() -> None:
    main(["train", "CartPole-v1", *FEW, "--seed", "3", "--output", "mine"])
    arguments = {**CARTPOLE.arguments, "n_groups": 2, "group_size": 2, "seed": 3}
    agent = GRPO("MlpPolicy", "CartPole-v1", **arguments).learn(40)
    assert digest(GRPO.load("mine")) == digest(agent)


def test_the_recipe_is_used_and_said_so(
    untrained: list[tuple[GRPO, float, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    main(["train", "CartPole-v1"])
    said = capsys.readouterr().out
    assert f"CartPole-v1: recipe for {CARTPOLE.total_timesteps:,} steps" in said
    changed = {name: value for name, value in CARTPOLE.arguments.items() if value != DEFAULTS[name]}
    assert [name for name, value in changed.items() if f"{name}={value!r}" not in said] == []
    ((agent, total_timesteps, _),) = untrained
    assert total_timesteps == CARTPOLE.total_timesteps
    assert {name: getattr(agent, name) for name in CARTPOLE.arguments} == CARTPOLE.arguments


def test_an_option_overrides_the_recipe(
    untrained: list[tuple[GRPO, float, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    main(["train", "CartPole-v1", "--gamma", "0.5", "--total-timesteps", "2e3"])
    ((agent, total_timesteps, _),) = untrained
    assert (agent.gamma, agent.learning_rate, total_timesteps) == (0.5, CARTPOLE.arguments["learning_rate"], 2000)
    assert "gamma=0.5" in capsys.readouterr().out


@pytest.mark.parametrize("words", [["--gamma", "0.5", "CartPole-v1"], ["--gamma=0.5", "CartPole-v1"]])
def test_the_recipe_is_used_wherever_the_environment_stands(
    words: list[str], untrained: list[tuple[GRPO, float, Any]]
) -> None:
    main(["train", *words])
    ((agent, total_timesteps, _),) = untrained
    assert (agent.gamma, agent.learning_rate) == (0.5, CARTPOLE.arguments["learning_rate"])
    assert total_timesteps == CARTPOLE.total_timesteps


def test_without_a_recipe_the_defaults_are_used_and_said_so(
    untrained: list[tuple[GRPO, float, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    main(["train", "FrozenLake-v1"])
    assert "FrozenLake-v1: no recipe, defaults\n  GRPO's defaults\n" in capsys.readouterr().out
    kept = [name for name in OPTIONS if name not in ("policy", "policy_kwargs", "device", "n_envs")]
    assert {name: getattr(untrained[0][0], name) for name in kept} == {name: DEFAULTS[name] for name in kept}
    assert untrained[0][1] == 100_000


def test_every_argument_of_the_agent_is_an_option(untrained: list[tuple[GRPO, float, Any]]) -> None:
    given: dict[str, tuple[str, Any]] = {
        "policy": ("MlpPolicy", None),
        "learning_rate": ("0.5", 0.5),
        "n_groups": ("2", 2),
        "group_size": ("3", 3),
        "n_steps": ("None", None),
        "n_workers": ("1", 1),
        "collector": ("processes", "processes"),
        "batch_size": ("None", None),
        "n_epochs": ("7", 7),
        "gamma": ("0.25", 0.25),
        "gae_lambda": ("0.5", 0.5),
        "value_window": ("3", 3),
        "baseline": ("outcome", "outcome"),
        "vine_states": ("5", 5),
        "vine_continuations": ("2", 2),
        "scale_rewards": ("none", "none"),
        "aggregation": ("constant", "constant"),
        "clip_range": ("lin_0.3", "lin_0.3"),
        "clip_range_high": ("0.4", 0.4),
        "ent_coef": ("0.01", 0.01),
        "max_grad_norm": ("1", 1.0),
        "n_envs": ("4", 4),
        "max_resamples": ("1", 1),
        "max_episode_steps": ("30", 30),
        "normalize_observations": ("", True),
        "target_kl": ("0.02", 0.02),
        "variant": ("dapo", "dapo"),
        "objective": ("sequence", "sequence"),
        "ratio_cap": ("3", 3.0),
        "min_group_std": ("0.5", 0.5),
        "truncated_episodes": ("drop_bad", "drop_bad"),
        "kl_coef": ("0.1", 0.1),
        "kl_estimator": ("k2", "k2"),
        "kl_in": ("reward", "reward"),
        "reference": ("other.zip", "other.zip"),
        "reference_update": ("0.5", 0.5),
        "reference_kl": ("0.03", 0.03),
        "adapter_rank": ("2", 2),
        "stats_window_size": ("9", 9),
        "tensorboard_log": ("logs", "logs"),
        "policy_kwargs": ("{'net_arch': [4]}", {"net_arch": [4]}),
        "verbose": ("1", 1),
        "seed": ("5", 5),
        "device": ("cpu", torch.device("cpu")),
    }
    assert set(given) == set(OPTIONS)
    words = [word for name, (text, _) in given.items() for word in (option(name), text) if word]
    main(["train", "CartPole-v1", *words, "--log-interval", "4"])
    ((agent, _, kwargs),) = untrained
    expected = {name: value for name, (_, value) in given.items() if name != "policy"}
    assert {name: getattr(agent, name) for name in expected} == expected
    assert kwargs == {"progress_bar": True, "log_interval": 4, "reset_num_timesteps": True}


@pytest.mark.parametrize("words", [["--variant", "microgrpo"], ["--variant=microgrpo"]])
def test_a_variants_arguments_are_the_defaults_and_what_is_typed_wins(
    words: list[str], untrained: list[tuple[GRPO, float, Any]]
) -> None:
    main(["train", "CartPole-v1", *words, "--n-groups", "2", "--max-resamples", "0"])
    ((agent, _, _),) = untrained
    assert agent.variant == "microgrpo"
    assert (agent.baseline, agent.group_size, agent.gamma, agent.batch_size) == ("leave_one_out", 16, 1.0, None)
    assert agent.n_groups == 2
    assert type(agent.optimizer) is torch.optim.AdamW


def test_an_unknown_variant_is_answered_with_the_known_ones() -> None:
    assert "variant='grpo3' is not known; choose from grpo" in fails(["train", "CartPole-v1", "--variant", "grpo3"])


def test_help_explains_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["train", "CartPole-v1", "--help"])
    assert caught.value.code == 0
    said = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert [name for name in OPTIONS if option(name) not in said] == []
    assert "members G of a group" in said
    assert f"(default: {CARTPOLE.arguments['gamma']})" in said


def test_arguments_of_the_environment_are_passed_on(
    untrained: list[tuple[GRPO, float, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[dict[str, Any]] = []
    make = gym.make

    def watch(env_id: str, **kwargs: Any) -> Any:
        made.append(kwargs)
        return make(env_id, **kwargs)

    monkeypatch.setattr(gym, "make", watch)
    main(["train", BATTLESHIP, "--env-kwargs", "{'placement': 'top_left'}"])
    trained_in: Any = untrained[0][0].get_env()
    assert trained_in.env.spec.kwargs["placement"] == "top_left"
    assert [kwargs["placement"] for kwargs in made] == ["top_left"] * len(made)  # for the score
    assert made


def test_the_score_of_train_is_that_of_greedy_evaluation(capsys: pytest.CaptureFixture[str]) -> None:
    # seeded: of an untrained policy's 20 games the greedy and the drawn ones can come to the same rounded score
    main(["train", BATTLESHIP, *FEW, "--seed", "1", "--output", "mine"])
    score = next(line for line in capsys.readouterr().out.splitlines() if "score" in line)
    main(["evaluate", "mine", BATTLESHIP])
    assert capsys.readouterr().out == f"{score}\n"
    main(["evaluate", "mine", BATTLESHIP, "--stochastic"])
    assert capsys.readouterr().out != f"{score}\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["CartPol-v1"], "there is no environment 'CartPol-v1'"),
        (["grpo_env:grpo/Battleship-v0"], "No module named 'grpo_env'"),
        (["CartPole-v1", "--group-size", "1"], "group_size=1 must be a whole number, at least 2"),
        (["CartPole-v1", "--learning-rate", "fast"], "learning_rate='fast' is not a schedule"),
        (["CartPole-v1", "--baseline", "critic"], "baseline='critic' is not known"),
        (["CartPole-v1", "--policy-kwargs", "[64"], "policy_kwargs='[64' is not a Python dictionary"),
        (["CartPole-v1", "--env-kwargs", "64"], "env_kwargs='64' is not a Python dictionary"),
        (["CartPole-v1", "--env-kwargs", "{'xyzzy': 1}"], "unexpected keyword argument 'xyzzy'"),
        (["CartPole-v1", "--total-timesteps", "0"], "total_timesteps=0.0 must be a finite number"),
    ],
)
def test_what_cannot_be_trained_ends_with_the_reason(words: list[str], said: str) -> None:
    assert said in fails(["train", *words])


@pytest.mark.parametrize(
    "words", [[], ["trian", "CartPole-v1"], ["train"], ["train", "CartPole-v1", "--group-sise", "4"]]
)
def test_what_cannot_be_understood_ends_with_help(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == 2
    assert "--help" in capsys.readouterr().err


# --- evaluate, play, recipes -----------------------------------------------------------------------------------


@pytest.fixture
def battleship_agent(folder: Path) -> str:
    GRPO("MlpPolicy", BATTLESHIP, n_groups=1, group_size=2, seed=0).save(folder / "agent")
    return "agent.zip"


@pytest.mark.parametrize("more", [[], ["--stochastic"], ["--env-kwargs", "{'placement': 'top_left'}"]])
def test_evaluate_prints_the_score_and_repeats_it(
    more: list[str], battleship_agent: str, capsys: pytest.CaptureFixture[str]
) -> None:
    said = []
    for _ in range(2):
        main(["evaluate", battleship_agent, BATTLESHIP, "--n-eval-episodes", "3", "--first-seed", "7", *more])
        said.append(capsys.readouterr().out)
    assert said[0].startswith(f"{BATTLESHIP}: score 0.")
    assert "over 3 episodes, mean length" in said[0]
    assert said[0] == said[1]


def test_play_shows_each_step_as_text_where_there_is_no_window(
    battleship_agent: str, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["play", battleship_agent, BATTLESHIP, "--episodes", "2", "--first-seed", "5"])
    said = capsys.readouterr().out
    assert [line.split(":")[0] for line in said.splitlines() if "return" in line] == ["seed 5", "seed 6"]
    first_board = said.split("\n\n")[0]
    # one shot was fired at one of the 25 cells
    assert sum(first_board.count(mark) for mark in "oX") == 1
    assert first_board.count("·") == 24


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["evaluate", "none.zip", "CartPole-v1"], "none.zip"),
        (["evaluate", "agent.zip", "CartPole-v1"], "predict got an observation of shape"),
        (["evaluate", "agent.zip", BATTLESHIP, "--n-eval-episodes", "0"], "at least one episode"),
        (["evaluate", "agent.zip", "CartPol-v1"], "CartPol"),
        (["play", "none.zip", "CartPole-v1"], "none.zip"),
        (["play", "agent.zip", "CartPol-v1"], "CartPol"),
        (["play", "broken.zip", BATTLESHIP], "truncated or corrupt"),
    ],
)
@pytest.mark.usefixtures("battleship_agent")
def test_what_cannot_be_played_ends_with_the_reason(words: list[str], said: str, folder: Path) -> None:
    (folder / "broken.zip").write_bytes(b"hello")
    assert said in fails(words)


def test_recipes_lists_every_recipe_with_its_settings(capsys: pytest.CaptureFixture[str]) -> None:
    main(["recipes"])
    said = capsys.readouterr().out
    for env_id, recipe in RECIPES.items():
        assert f"{env_id}  ({recipe.total_timesteps:,} steps)" in said
        assert [name for name, value in recipe.arguments.items() if f"{name}={value!r}" not in said] == []


# --- doctor ----------------------------------------------------------------------------------------------------

SMALL = ["--n-groups", "2", "--group-size", "3", "--max-episode-steps", "30"]


def test_doctor_prints_the_report_that_the_same_arguments_give_in_python(capsys: pytest.CaptureFixture[str]) -> None:
    main(["doctor", "CartPole-v1", *SMALL, "--seed", "5", "--gamma", "0.9"])
    assert capsys.readouterr().out == f"{check_group_env('CartPole-v1', 2, 3, 5, 30, 0.9)}\n"


def test_doctor_passes_arguments_of_the_environment_on(capsys: pytest.CaptureFixture[str]) -> None:
    main(["doctor", "FrozenLake-v1", *SMALL, "--env-kwargs", "{'desc': ['SG', 'HH'], 'is_slippery': False}"])
    said = capsys.readouterr().out
    assert "100% terminated" in said
    assert "mean length 30.0" not in said
    main(["doctor", "FrozenLake-v1", *SMALL, "--env-kwargs", "{'desc': ['SF', 'FF'], 'is_slippery': False}"])
    assert "100% cut here after 30 steps; mean length 30.0" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["CartPol-v1"], "there is no environment 'CartPol-v1'"),
        (["CartPole-v1", "--group-size", "1"], "group_size=1 must be a whole number, at least 2"),
        (["CartPole-v1", "--env-kwargs", "64"], "env_kwargs='64' is not a Python dictionary"),
    ],
)
def test_what_cannot_be_checked_ends_with_the_reason(words: list[str], said: str) -> None:
    assert said in fails(["doctor", *words])


# --- games of several players -------------------------------------------------------------------------------------


DUEL = "pettingzoo:grpo_envs.duel"


def test_a_game_is_trained_evaluated_and_watched(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("pettingzoo", reason="games of several agents; grpo_gym[multiagent] brings it")
    small = ["--env-kwargs", "{'board_size': 2, 'fleet': (1,)}"]
    main(["train", DUEL, *FEW, *small, "--league-share", "0.5", "--seed", "3", "--total-timesteps", "60"])
    said = capsys.readouterr()
    assert f"{DUEL}: player: player_0, player_1" in said.out
    assert f"{DUEL}: over 20 games\n  player_0: score " in said.out
    assert "saved runs/grpo-envs.duel.zip; watch it:  grpo-gym play runs/grpo-envs.duel.zip" in said.out
    path = folder / "runs" / "grpo-envs.duel.zip"
    agent = GRPO.load(path)
    assert (agent.seed, agent.n_groups, agent.league_share) == (3, 2, 0.5)  # type: ignore[attr-defined]
    main(["evaluate", str(path), DUEL, *small, "--n-eval-episodes", "4"])
    assert f"{DUEL}: over 4 games\n  player_0: score " in capsys.readouterr().out
    main(["play", str(path), DUEL, *small, "--episodes", "1"])
    said = capsys.readouterr()
    assert "player_0 fires" in said.out
    assert "seed 0: " in said.out


def test_a_games_options_are_those_of_the_agent_for_several(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["train", DUEL, "--help"])
    said = capsys.readouterr().out
    for name in ("policy_groups", "team_reward", "agent_identity", "league_share", "league_size", "league_every"):
        assert option(name) in said
    assert option("clip_range") in said


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([DUEL, "--policy-groups", "3"], "policy_groups='3' is not a Python dictionary"),
        (["pettingzoo:math"], "has neither parallel_env nor env"),
        ([DUEL, "--n-workers", "2"], "n_workers=2 is not for several agents"),
    ],
)
def test_what_cannot_be_trained_in_a_game_is_said(words: list[str], says: str) -> None:
    pytest.importorskip("pettingzoo", reason="games of several agents; grpo_gym[multiagent] brings it")
    assert says in fails(["train", *words])
