import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]

from grpo_gym import GRPO, agent, cli
from grpo_gym.rollout import Collector
from grpo_gym.unfinished import STOP_SIGNALS, stoppable
from tests.agents import digest

ROOT = Path(__file__).parents[1]
WHOLE = ["--n-groups", "2", "--group-size", "2", "--n-steps", "None", "--baseline", "live_peers"]
SEGMENTS = ["--n-groups", "2", "--group-size", "2", "--n-steps", "10", "--baseline", "soft_groups"]
TRAIN = ["train", "CartPole-v1", "--total-timesteps", "400", "--seed", "3", "--save-every", "100"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli, "_play", lambda *args, **kwargs: None)  # the score is tested elsewhere
    return tmp_path


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*.zip"))


Break = Callable[[int, Callable[[], Any]], None]


@pytest.fixture
def break_step(monkeypatch: pytest.MonkeyPatch) -> Break:
    """Do something in the n-th vector step."""

    def arrange(n: int, act: Callable[[], Any]) -> None:
        calls = 0

        def stepped(self: Collector, *args: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == n:
                act()
            return original(self, *args)

        original = Collector._stepped
        monkeypatch.setattr(Collector, "_stepped", stepped)

    return arrange


@pytest.fixture
def break_update(monkeypatch: pytest.MonkeyPatch) -> Break:
    """Do something in the n-th update, when the weights are no more what they were and nothing else tells."""

    def arrange(n: int, act: Callable[[], Any]) -> None:
        calls = 0

        def update(*args: Any) -> Any:
            nonlocal calls
            calls += 1
            metrics = original(*args)
            if calls == n:
                act()
            return metrics

        original = vars(agent)["update"]
        monkeypatch.setattr(agent, "update", update)

    return arrange


def die_of(number: int) -> Callable[[], None]:
    return lambda: os.kill(os.getpid(), number)


def ends(words: list[str]) -> Any:
    """Run a command that ends early, and return its exit status."""
    with pytest.raises(SystemExit) as caught:
        cli.main(words)
    return caught.value.code


@pytest.fixture
def expected(folder: Path) -> Callable[[list[str]], str]:
    """The weights that the same command leaves if nothing stops it."""

    def train(words: list[str]) -> str:
        cli.main([*words, "--output", "undisturbed"])
        return digest(GRPO.load("undisturbed"))

    return train


@pytest.mark.parametrize(
    ("settings", "number", "status", "where", "n"),
    [
        (WHOLE, signal.SIGTERM, 143, "step", 80),
        (WHOLE, signal.SIGINT, 130, "update", 3),
        (SEGMENTS, signal.SIGINT, 130, "step", 66),
        (SEGMENTS, signal.SIGTERM, 143, "step", 1),
    ],
)
def test_a_run_that_is_told_to_stop_goes_on_to_the_same_bits(
    settings: list[str],
    number: int,
    status: int,
    where: str,
    n: int,
    folder: Path,
    expected: Callable[[list[str]], str],
    capsys: pytest.CaptureFixture[str],
    request: pytest.FixtureRequest,
) -> None:
    words = [*TRAIN, *settings, "--tensorboard-log", "logs", "--log-interval", "1"]
    digest_expected = expected(words)
    handlers = [signal.getsignal(s) for s in STOP_SIGNALS]
    request.getfixturevalue(f"break_{where}")(n, die_of(number))
    assert ends(words) == status
    assert [signal.getsignal(s) for s in STOP_SIGNALS] == handlers
    (said,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("stopped by")]
    saved, command = said.split("saved ")[1].split("; go on with:  ")
    assert said.startswith(f"stopped by {signal.Signals(number).name}")
    assert (folder / saved).is_file()
    assert command == f"grpo-gym {' '.join(words)} --resume"
    cli.main([*words, "--resume"])
    assert f"resuming {saved}" in capsys.readouterr().out
    assert digest(GRPO.load("runs/CartPole-v1")) == digest_expected
    assert files(folder / "runs") == ["CartPole-v1.zip"]
    runs = [EventAccumulator(str(folder / "logs" / f"GRPO_{k}")).Reload().Scalars("train/loss") for k in (1, 2)]
    assert sorted((e.step, e.value) for e in runs[0]) == sorted((e.step, e.value) for e in runs[1])


def test_an_exception_leaves_the_run_saved_and_says_how_to_go_on(
    folder: Path, expected: Callable[[list[str]], str], break_step: Break
) -> None:
    def fail() -> None:
        raise ValueError("the simulator crashed")

    digest_expected = expected([*TRAIN, *WHOLE])
    break_step(70, fail)
    with pytest.raises(ValueError, match="the simulator crashed") as caught:
        cli.main([*TRAIN, *WHOLE])
    (saved,) = set(files(folder / "runs")) - {"CartPole-v1_1/agent_0_steps.zip"}
    assert f"the run is saved as runs/{saved}" in "".join(getattr(caught.value, "__notes__", [f"{saved}"]))
    cli.main([*TRAIN, *WHOLE, "--resume"])
    assert digest(GRPO.load("runs/CartPole-v1")) == digest_expected


def test_a_run_keeps_its_newest_two_files_and_another_run_leaves_them_alone(folder: Path, break_step: Break) -> None:
    words = [*TRAIN, *SEGMENTS, "--save-every", "1"]  # each iteration; 40 steps are one
    break_step(65, die_of(signal.SIGTERM))
    assert ends(words) == 143
    kept = ["CartPole-v1_1/agent_200_steps.zip", "CartPole-v1_1/agent_240_steps.zip"]
    assert files(folder / "runs") == kept
    cli.main(words)
    assert files(folder / "runs") == ["CartPole-v1.zip", *kept]


def test_without_a_run_to_resume_training_starts_anew(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cli.main([*TRAIN, *WHOLE, "--resume"])
    assert "nothing to resume beside runs/CartPole-v1.zip: starting anew" in capsys.readouterr().out
    assert GRPO.load("runs/CartPole-v1").num_timesteps >= 400


def test_a_finished_run_is_resumed_only_for_more_steps(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cli.main([*TRAIN, *SEGMENTS])
    before = (folder / "runs" / "CartPole-v1.zip").read_bytes()
    cli.main([*TRAIN, *SEGMENTS, "--resume"])
    assert (folder / "runs" / "CartPole-v1.zip").read_bytes() == before
    cli.main(["train", "CartPole-v1", "--resume", "--total-timesteps", "800"])
    assert "400 of 800 steps done\n  as before\n" in capsys.readouterr().out
    assert GRPO.load("runs/CartPole-v1").num_timesteps == 800


def test_what_is_not_given_again_is_as_it_was_and_what_is_given_is_changed(
    folder: Path, break_step: Break, capsys: pytest.CaptureFixture[str]
) -> None:
    break_step(50, die_of(signal.SIGTERM))
    words = [*TRAIN, *SEGMENTS, "--gamma", "0.5", "--policy-kwargs", "{'net_arch': [8]}"]
    assert ends(words) == 143
    cli.main(["train", "CartPole-v1", "--resume", "--learning-rate", "0.25"])
    assert "  learning_rate=0.25\n" in capsys.readouterr().out
    resumed = GRPO.load("runs/CartPole-v1")
    assert (resumed.gamma, resumed.learning_rate, resumed.seed, resumed.n_steps) == (0.5, 0.25, 3, 10)
    assert (resumed.policy_kwargs, resumed.num_timesteps) == ({"net_arch": [8]}, 400)


def test_signals_are_left_alone_in_other_threads() -> None:
    import threading

    seen: list[Any] = []

    def look() -> None:
        with stoppable():
            seen.append([signal.getsignal(s) for s in STOP_SIGNALS])

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert seen == [[signal.getsignal(s) for s in STOP_SIGNALS]]


PROCESSES = """
import os, re, signal, sys
import torch
torch.set_num_threads(1)
from grpo_gym import GRPO, cli

WORDS = ["train", "CartPole-v1", "--n-groups", "2", "--group-size", "2", "--seed", "3", "--save-every", "1"]
WORDS += ["--verbose", "1", "--log-interval", "1"]

def child(words):
    ours, theirs = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.dup2(theirs, 1)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        try:
            cli.main(words)
            code = 0
        except SystemExit as end:
            code = end.code
        except BaseException:
            code = 99
        sys.stdout.flush()
        os._exit(code)
    os.close(theirs)
    return pid, os.fdopen(ours)

for number, status in ((signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)):
    out = ["--output", signal.Signals(number).name]
    pid, lines = child([*WORDS, *out, "--total-timesteps", "1e9"])
    steps = []
    while len(steps) < 4:  # iterations
        steps += map(int, re.findall("total_timesteps *[|] ([0-9]+)", next(lines)))
    os.kill(pid, number)
    rest = lines.read()
    ended = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert ended == status, (number, ended)
    assert ("go on with:  grpo-gym train" in rest) == (number != signal.SIGKILL), rest
    pid, lines = child([*WORDS, *out, "--total-timesteps", str(steps[3] + 50), "--resume"])
    rest = lines.read()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0, rest
    resumed = int(re.search("resuming .*agent_([0-9]+)_steps", rest)[1])
    assert resumed >= steps[2], (resumed, steps)  # at the start of the fourth it was saved
    GRPO.load(out[1])
    print(number.name, file=sys.stderr, flush=True)
"""


def test_processes_that_are_interrupted_terminated_or_killed_go_on(folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROCESSES],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path)])},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.stderr.split() == ["SIGINT", "SIGTERM", "SIGKILL"]
