from __future__ import annotations

import dataclasses
import json
import math
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from gymnasium.envs.classic_control.cartpole import CartPoleEnv
from torch import nn

from benchmarks import learners, tasks
from benchmarks.learners import OnProgress, Trained
from benchmarks.speed import __main__ as command_line
from benchmarks.speed import case, cases, growth, results, solve, throughput
from benchmarks.speed.case import QUICK, Spent
from benchmarks.speed.fresh import fresh
from benchmarks.speed.results import Record
from benchmarks.tasks import Task
from grpo_gym import GRPO
from tests.benchmarks.test_cell import push_left

INF = math.inf

RECORD = Record(
    case="collect-CartPole-v1",
    about="Ours against theirs.",
    compared=[("ours", "theirs"), ("ours", None)],
    # the machine is half as fast in the second round, and half as fast again in the third
    rounds=[
        {"ours": {"env steps/s": 600.0}, "theirs": {"env steps/s": 1200.0}},
        {"ours": {"env steps/s": 300.0}, "theirs": {"env steps/s": 600.0}},
        {"ours": {"env steps/s": 150.0}, "theirs": {"env steps/s": 300.0}},
    ],
    command="python -m benchmarks.speed --only collect-CartPole-v1",
    threads={"torch threads": 1},
    versions={"python": "3.11.7"},
    machine={"cpu": "a processor", "cores": 2},
    load=0.5,
)


def solved_after(*seconds: float) -> Record:
    """Return a record in which ours took so long, and theirs 10 s except for the last, which never got there."""
    theirs = [10.0] * (len(seconds) - 1) + [INF]
    rounds = [{"ours": {"s": a}, "theirs": {"s": b}} for a, b in zip(seconds, theirs, strict=True)]
    return dataclasses.replace(RECORD, case="memory", rounds=rounds, compared=[("ours", "theirs")])


def test_a_machine_that_slows_down_changes_no_ratio() -> None:
    assert results.ratios(RECORD.rounds, "ours", "theirs", "env steps/s") == [0.5, 0.5, 0.5]


def test_quartiles_are_values_that_were_measured() -> None:
    assert results.quartiles([5.0, 1.0, 4.0, 2.0, 3.0]) == (2.0, 3.0, 4.0)
    assert results.quartiles([2.0, 1.0]) == (1.0, 1.0, 2.0)
    assert results.quartiles([7.0]) == (7.0, 7.0, 7.0)
    assert results.quartiles([1.0, INF, 2.0]) == (1.0, 2.0, INF)


def test_a_row_has_both_medians_and_their_ratio_or_the_range_of_one() -> None:
    assert results.rows(RECORD) == [
        [
            "collect-CartPole-v1",
            "env steps/s",
            "ours",
            "300",
            "theirs",
            "600",
            "**0.500**",
            "0.500 … 0.500",
            "3",
        ],
        ["collect-CartPole-v1", "env steps/s", "ours", "300", "", "", "", "150 … 600", "3"],
    ]


def test_what_did_not_get_there_is_counted_and_never_flatters_us() -> None:
    (row,) = results.rows(solved_after(1.0, 2.0, 3.0))
    assert row[3:8] == ["2.00", "theirs", "10.0 (2 of 3)", "**0.100**", "0 … 0.200"]
    (row,) = results.rows(solved_after(INF, INF, INF))
    # in the last round neither got there, which is no comparison; in the others theirs did
    assert row[3:8] == ["– (0 of 3)", "theirs", "10.0 (2 of 3)", "**–**", "– … –"]


def test_a_unit_that_only_one_side_has_is_not_compared() -> None:
    one = {"ours": {"s": 2.0, "env steps": 100.0}, "theirs": {"s": 4.0}}
    record = dataclasses.replace(RECORD, rounds=[one], compared=[("ours", "theirs")])
    assert [row[1] for row in results.rows(record)] == ["s"]


@pytest.mark.parametrize("record", [RECORD, solved_after(1.0, INF)])
def test_a_record_survives_its_line(record: Record) -> None:
    assert results.from_line(results.to_line(record)) == record
    json.loads(results.to_line(record), parse_constant=pytest.fail)  # neither Infinity nor NaN: any JSON reader can


def test_a_line_with_other_fields_is_refused() -> None:
    with pytest.raises(ValueError, match="delete it and measure the case again"):
        results.from_line('{"case": "memory"}')


def test_a_case_measured_again_replaces_its_own_record_and_no_other(tmp_path: Path) -> None:
    order = ["collect-CartPole-v1", "memory"]
    for record in (solved_after(1.0, 1.0), RECORD, dataclasses.replace(RECORD, load=0.25)):
        results.store(record, tmp_path, order)
    stored = [results.from_line(line) for line in (tmp_path / results.LINES).read_text().splitlines()]
    assert [(record.case, record.load) for record in stored] == [("collect-CartPole-v1", 0.25), ("memory", 0.5)]
    page = (tmp_path / results.TABLE).read_text()
    cells = "env steps/s | ours | 300 | theirs | 600 | **0.500** | 0.500 … 0.500 | 3 |"
    assert f"| collect-CartPole-v1 | {cells}\n" in page
    assert "cpu a processor, cores 2, torch threads 1, python 3.11.7: collect-CartPole-v1 (load 0.2), memory" in page


def test_work_is_repeated_until_the_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(now=0.0)
    clocks = SimpleNamespace(perf_counter=lambda: clock.now, process_time=lambda: clock.now / 2)
    monkeypatch.setattr(case, "time", clocks)

    def work() -> int:
        clock.now += 0.5
        return 10

    # after 0.5, 1.0 and 1.5 s: the third is the first to reach what was asked for
    assert case.spend(work, 1.25) == Spent(count=30, wall=1.5, cpu=0.75)
    assert case.spend(work) == Spent(count=10, wall=0.5, cpu=0.25)


def test_work_is_counted_when_the_clock_has_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(case, "time", SimpleNamespace(perf_counter=lambda: clock.now, process_time=lambda: clock.now))

    class Done:
        def __int__(self) -> int:
            clock.now += 100.0
            return 10

    def work() -> Done:
        clock.now += 0.5
        return Done()

    assert case.spend(work, 0.75) == Spent(count=20, wall=1.0, cpu=1.0)


def test_a_step_that_only_resets_is_no_env_step(monkeypatch: pytest.MonkeyPatch) -> None:
    calls, step = [], CartPoleEnv.step

    def counted(self: CartPoleEnv, action: Any) -> Any:
        calls.append(action)
        return step(self, action)  # type: ignore[no-untyped-call]

    monkeypatch.setattr(CartPoleEnv, "step", counted)
    stepped = throughput.random_stepping("CartPole-v1", 3)()
    # what ended in the last vector step would be reset in the next
    due = int(stepped.terminated[-1].sum())
    assert int(stepped) == len(calls) - due < 128 * 3


def test_speeds_and_costs_are_each_others_inverse() -> None:
    spent = Spent(count=1_000, wall=2.0, cpu=0.5)
    assert spent.per_second("env steps") == {"env steps/s": 500.0, "env steps/CPU s": 2_000.0}
    assert spent.each("step") == {"µs/step": 2_000.0, "CPU µs/step": 500.0}


def test_a_collection_counts_every_step_of_every_episode() -> None:
    agent = GRPO("MlpPolicy", "CartPole-v1", n_groups=2, group_size=3, max_episode_steps=5, seed=0)
    # nobody drops the pole within 5 steps
    assert throughput.collect_once(agent) == 2 * 3 * 5


def test_the_bare_products_are_those_of_the_gradient() -> None:
    generator = torch.Generator().manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 5, bias=False), nn.Tanh(), nn.Linear(5, 4, bias=False), nn.Tanh())
    network.append(nn.Linear(4, 2, bias=False))
    inputs, output_gradient = torch.randn(7, 3, generator=generator), torch.randn(7, 2, generator=generator)
    weights = list(network.parameters())
    expected = torch.autograd.grad(network(inputs), weights, output_gradient)
    with torch.no_grad():
        found = throughput.bare_pass(weights, inputs, output_gradient)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_a_fresh_process_is_another_one_with_one_thread() -> None:
    assert fresh("os:getpid") != os.getpid()
    assert fresh("os:getenv", "OMP_NUM_THREADS") == "1"


def test_a_fresh_process_that_fails_is_reported(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RuntimeError, match=r"math:sqrt\(-1,\) ended with exit status 1"):
        fresh("math:sqrt", -1)
    assert "math domain error" in capfd.readouterr().err


class Reporter:
    """A learner that reports every 1,000 steps of its 5,000."""

    def train(self, task: Task, seed: int, settings: str, on_progress: OnProgress) -> Trained:
        for report in range(1, 6):
            on_progress(report * 1_000, push_left)
        return Trained(5_000, push_left)


@pytest.fixture
def race(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fake_learner", SimpleNamespace(REPORTER=Reporter()))
    monkeypatch.setattr(learners, "LEARNERS", {"fake": "fake_learner:REPORTER"})
    runner = solve.Runner("fake", "zoo", 5_000)
    # a cart that is always pushed to the left gets 8 to 10
    for name, threshold in (("easy", 5.0), ("hard", 20.0)):
        race = solve.Race("CartPole-v1", threshold, n_episodes=2, interval=2_000, runners={"side": runner})
        monkeypatch.setattr(solve, "RACES", {**solve.RACES, name: race})


@pytest.mark.usefixtures("race")
def test_a_run_ends_at_the_first_evaluation_that_is_good_enough() -> None:
    found = solve.until_solved("easy", "side", 0, None)
    # evaluated every 2,000 steps
    assert (found["solved"], found["steps"]) == (True, 2_000)


@pytest.mark.usefixtures("race")
def test_a_run_that_never_gets_there_spends_its_budget() -> None:
    found = solve.until_solved("hard", "side", 0, None)
    assert (found["solved"], found["steps"]) == (False, 5_000)


def test_evaluations_are_taken_off_both_clocks(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = {"solved": True, "steps": 7, "cpu": 2.0, "evaluation_wall": 3.0}
    monkeypatch.setattr(solve, "fresh", lambda *arguments: answer)
    now = iter([100.0, 110.0, 200.0, 220.0])
    monkeypatch.setattr(solve, "time", SimpleNamespace(perf_counter=lambda: next(now)))
    assert solve.solving("CartPole-v1", QUICK)(0) == {
        "grpo": {"s": 7.0, "CPU s": 2.0, "env steps": 7.0},
        "sb3 ppo": {"s": 17.0, "CPU s": 2.0, "env steps": 7.0},
    }


def test_every_race_is_about_a_task_and_learners_that_there_are() -> None:
    for race in solve.RACES.values():
        assert race.task in tasks.TASKS
        assert {runner.algorithm for runner in race.runners.values()} <= set(learners.LEARNERS)


def test_a_time_that_was_published_is_compared_in_seconds_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = {"solved": False, "steps": 7, "cpu": 2.0, "evaluation_wall": 0.0}
    monkeypatch.setattr(solve, "fresh", lambda *arguments: answer)
    found = solve.solving("Battleship-v0", QUICK)(0)
    # 12.3 s an iteration, 2,000 iterations
    assert found["microGRPO (cited)"] == {"s": pytest.approx(24_600)}
    assert found["grpo"] == {"s": INF, "CPU s": INF, "env steps": INF}


needs_proc = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")


@needs_proc
def test_the_peak_of_memory_is_at_least_what_is_in_use() -> None:
    in_use = growth.memory("VmRSS")
    assert 10 < in_use <= growth.memory("VmHWM") + 1


@needs_proc
def test_memory_is_looked_at_twenty_times_at_equal_distances() -> None:
    samples = growth.residence(0, 2_000)
    assert len(samples) == 20
    # 32 slots at most are stepped at once
    assert all(100 * n <= steps < 100 * n + 32 for n, (steps, _) in enumerate(samples, start=1))


@needs_proc
def test_a_cost_is_measured_for_each_setting() -> None:
    found = growth.cost(dataclasses.asdict(growth.Setting("Pendulum-v1", n_slots=2, episode_steps=3)), 0.0)
    assert list(found) == [
        "collect, µs/step",
        "collect, CPU µs/step",
        "learn, µs/step",
        "learn, CPU µs/step",
        "peak RSS, MiB",
    ]
    assert min(found.values()) > 0


@pytest.mark.parametrize(
    "name", ["collect-CartPole-v1", "collect-CartPole-v1-trained", "update-CartPole", "learn-recipe", "learn-fast"]
)
def test_a_case_finds_what_it_compares(name: str) -> None:
    record = cases.measure(name, repeats=2, quick=True)
    assert len(record.rounds) == 2
    assert record.command == f"python -m benchmarks.speed --only {name} --repeats 2 --quick"
    for ours, theirs in record.compared:
        assert (theirs is None) == (ours == "grpo afterwards")
        for one in record.rounds:
            assert theirs is None or one[ours].keys() == one[theirs].keys()
            assert all(0 < value < INF for side in (ours, theirs) if side for value in one[side].values())


def test_workers_are_compared_with_one_process_by_the_wall_clock() -> None:
    pytest.importorskip("mujoco")
    (one,) = cases.measure("workers-HalfCheetah-v5", repeats=1, quick=True).rounds
    assert one["2 workers"].keys() == one["this process"].keys() == {"env steps/s"}


@pytest.mark.parametrize("name", ["learn-envpool", "learn-envpool-64", "learn-envpool-fast"])
def test_learning_in_envpool_is_compared_by_speed_and_by_score(name: str) -> None:
    pytest.importorskip("envpool")
    (one,) = cases.measure(name, repeats=1, quick=True).rounds
    assert one["envpool"].keys() == one["slots"].keys() == {"env steps/s", "env steps/CPU s", "mean return", "score"}


def test_learning_is_compared_with_a_peer() -> None:
    pytest.importorskip("sb3_contrib")
    (one,) = cases.measure("learn-zoo", repeats=1, quick=True).rounds
    assert one["grpo"].keys() == one["sb3 ppo"].keys() == {"env steps/s", "env steps/CPU s"}


def test_cases_are_found_by_name_or_by_how_it_begins() -> None:
    assert cases.find(["collect-CartPole-v1"]) == ["collect-CartPole-v1"]
    assert cases.find(["scaling", "memory"]) == ["scaling-slots", "scaling-network", "scaling-length", "memory"]
    assert cases.find(list(cases.CASES)) == list(cases.CASES)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--only", "colect"], "there is no case 'colect': choose from collect-CartPole-v1, "),
        (["--quick"], "must not mix with results"),
        (["--repeats", "0"], "--repeats 0 measures nothing"),
    ],
)
def test_a_wrong_command_line_is_explained(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        command_line.main(arguments)
    assert message in capsys.readouterr().err


def test_one_failing_case_stops_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def measured(target: str, name: str, repeats: int | None, quick: bool) -> str:
        if name == "collect-CartPole-v1":
            raise RuntimeError("exit status 1")
        return results.to_line(dataclasses.replace(RECORD, case=name))

    monkeypatch.setattr(command_line, "fresh", measured)
    arguments = ["--only", "collect-CartPole-v1", "memory", "--results", str(tmp_path)]
    assert command_line.main(arguments) == 1
    assert "collect-CartPole-v1 failed: exit status 1" in capsys.readouterr().err
    assert json.loads((tmp_path / results.LINES).read_text())["case"] == "memory"


def test_the_list_says_what_each_case_measures(capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line.main(["--list"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert [line.partition(" ")[0] for line in printed] == list(cases.CASES)
