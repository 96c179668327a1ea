import random
import sys
import warnings
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces

from grpo_gym.callbacks import (
    BaseCallback,
    CallbackList,
    CheckpointCallback,
    ConvertCallback,
    EvalCallback,
    EventCallback,
    EveryNTimesteps,
    LogEveryNTimesteps,
    ProgressBarCallback,
    StopTrainingOnMaxEpisodes,
    StopTrainingOnNoModelImprovement,
    StopTrainingOnRewardThreshold,
    as_callback,
)
from grpo_gym.logger import Logger, configure


class Scores(gym.Env[Any, Any]):
    """One-step episodes; the k-th earns the k-th score, again and again."""

    observation_space = spaces.Box(0.0, 1.0, (1,))
    action_space = spaces.Discrete(2)

    def __init__(self, scores: list[float], success: bool | None = None) -> None:
        self.scores, self.played, self.closed = scores, 0, False
        self.info = {} if success is None else {"is_success": success}
        self.seeds: list[int | None] = []

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        self.seeds.append(seed)
        return np.zeros(1, np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        score = self.scores[self.played % len(self.scores)]
        self.played += 1
        return np.zeros(1, np.float32), score, True, False, dict(self.info)

    def close(self) -> None:
        self.closed = True


class Memory:
    """A log format that remembers each dump."""

    def __init__(self) -> None:
        self.dumps: list[tuple[int, dict[str, Any]]] = []

    def write(self, key_values: Any, key_excluded: Any, step: int = 0) -> None:
        self.dumps.append((step, dict(key_values)))

    def close(self) -> None: ...


class Agent:
    """As much of an agent as callbacks see, with a `learn` of a few lines."""

    n_envs = 2
    seed: int | None = None
    max_episode_steps: int | None = None

    def __init__(self) -> None:
        self.num_timesteps = 0
        self._total_timesteps = 0
        self.env: Any = gym.Env()
        self.memory = Memory()
        self.logger = Logger(None, [self.memory])
        self.saved: list[str] = []
        self.ep_info_buffer: deque[dict[str, float]] = deque(maxlen=100)

    def get_env(self) -> Any:
        return self.env

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[Any, Any]:
        return np.zeros(len(observation), int), state

    def save(self, path: Any) -> None:
        self.saved.append(str(path))

    def dump_logs(self) -> None:
        self.logger.record("dumped", self.num_timesteps)
        self.logger.dump(self.num_timesteps)

    def learn(self, n_steps: int, callback: Any, dones: tuple[bool, ...] = (False, False)) -> int:
        """Take at most `n_steps` vector steps of 3 environment steps each; return how many were taken."""
        hooks = as_callback(callback)
        self._total_timesteps = self.num_timesteps + 3 * n_steps
        hooks.init_callback(self)
        try:
            hooks.on_training_start({"total_timesteps": self._total_timesteps, "self": self}, globals())
            hooks.on_rollout_start()
            for step in range(1, n_steps + 1):
                self.num_timesteps += 3
                hooks.update_locals({"dones": np.array(dones), "infos": [{}, {}], "step": step})
                if not hooks.on_step():
                    return step
            hooks.on_rollout_end()
        finally:
            hooks.on_training_end()
        return n_steps


class Recorder(BaseCallback):
    """Notes every hook; asks to stop at call `stop_at`."""

    def __init__(self, stop_at: int | None = None) -> None:
        super().__init__()
        self.stop_at = stop_at
        self.seen: list[str] = []

    def _init_callback(self) -> None:
        self.seen.append("init")

    def _on_training_start(self) -> None:
        self.seen.append("training_start")

    def _on_rollout_start(self) -> None:
        self.seen.append("rollout_start")

    def _on_step(self) -> bool:
        self.seen.append(f"step {self.num_timesteps}")
        return self.n_calls != self.stop_at

    def _on_rollout_end(self) -> None:
        self.seen.append("rollout_end")

    def _on_training_end(self) -> None:
        self.seen.append("training_end")


def test_the_hooks_come_in_order_and_know_the_agent() -> None:
    agent, recorder = Agent(), Recorder()
    agent.num_timesteps = 10
    agent.learn(2, recorder)
    assert recorder.seen == [
        "init",
        "training_start",
        "rollout_start",
        "step 13",
        "step 16",
        "rollout_end",
        "training_end",
    ]
    assert recorder.model is agent
    assert recorder.training_env is agent.env
    assert recorder.logger is agent.logger
    assert recorder.n_calls == 2
    assert recorder.locals["total_timesteps"] == 16
    assert recorder.locals["step"] == 2
    assert recorder.globals is globals()


def test_an_agent_without_an_environment_is_named() -> None:
    agent, recorder = Agent(), Recorder()
    agent.env = None
    recorder.init_callback(agent)
    with pytest.raises(ValueError, match="set_env"):
        _ = recorder.training_env


@pytest.mark.parametrize(("answer", "steps"), [(False, 1), (np.False_, 1), (0, 1), (True, 4), (None, 4), (np.True_, 4)])
def test_false_stops_and_nothing_said_goes_on(answer: Any, steps: int) -> None:
    class Answering(BaseCallback):
        def _on_step(self) -> bool:
            return answer  # type: ignore[no-any-return]

    assert Agent().learn(4, Answering()) == steps
    assert Agent().learn(4, lambda locals_, globals_: answer) == steps
    assert Agent().learn(4, [Answering()]) == steps
    assert Agent().learn(4, EveryNTimesteps(1, Answering())) == steps


def test_a_list_calls_all_even_when_the_first_says_stop() -> None:
    recorders = [Recorder(stop_at=2), Recorder(), Recorder()]
    assert Agent().learn(5, [recorders[0], [recorders[1], recorders[2]]]) == 2
    assert [recorder.n_calls for recorder in recorders] == [2, 2, 2]
    assert [recorder.seen[-1] for recorder in recorders] == ["training_end"] * 3


def test_a_list_ends_all_even_when_one_fails_at_it() -> None:
    class Failing(Recorder):
        def _on_training_end(self) -> None:
            raise OSError("disk")

    recorder = Recorder()
    with pytest.raises(OSError, match="disk"):
        Agent().learn(1, [Failing(), recorder])
    assert recorder.seen[-1] == "training_end"


def test_learn_accepts_nothing_a_function_a_list_or_a_callback() -> None:
    assert isinstance(as_callback(None), CallbackList)
    assert isinstance(as_callback([None, lambda locals_, globals_: True]), CallbackList)
    assert isinstance(as_callback(lambda locals_, globals_: True), ConvertCallback)
    recorder = Recorder()
    assert as_callback(recorder) is recorder
    with pytest.raises(TypeError, match="callback is a int; expected None, a function"):
        as_callback(3)


def test_a_function_sees_the_locals_of_its_step() -> None:
    seen: list[int] = []
    Agent().learn(3, lambda locals_, globals_: seen.append(locals_["step"]))
    assert seen == [1, 2, 3]


def test_the_children_of_an_event_start_and_end_with_it_and_see_its_locals() -> None:
    child = Recorder()
    event = EveryNTimesteps(5, child)
    Agent().learn(4, event)
    assert child.seen == ["init", "training_start", "step 6", "step 12", "training_end"]
    assert child.parent is event
    assert child.locals["step"] == 4


def test_children_in_a_list_have_the_lists_parent() -> None:
    child = Recorder()
    event = EventCallback(CallbackList([child]))
    event.init_callback(Agent())
    assert child.parent is event


def test_every_n_timesteps_counts_anew_when_the_agent_does() -> None:
    agent, child = Agent(), Recorder()
    event = EveryNTimesteps(6, child)
    agent.learn(4, event)
    agent.num_timesteps = 0
    agent.learn(2, event)
    assert [entry for entry in child.seen if entry.startswith("step")] == ["step 6", "step 12", "step 6"]


def test_the_log_is_dumped_every_n_timesteps() -> None:
    agent = Agent()
    agent.learn(4, LogEveryNTimesteps(6))
    assert agent.memory.dumps == [(6, {"dumped": 6}), (12, {"dumped": 12})]


def test_checkpoints_are_saved_every_so_many_calls(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    agent = Agent()
    agent.learn(5, CheckpointCallback(2, tmp_path / "new", name_prefix="x", verbose=2))
    assert agent.saved == [str(tmp_path / "new" / "x_6_steps.zip"), str(tmp_path / "new" / "x_12_steps.zip")]
    assert (tmp_path / "new").is_dir()
    assert "x_12_steps.zip" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["save_freq", "eval_freq"])
def test_who_waits_for_environment_steps_in_vain_is_told(name: str, tmp_path: Path) -> None:
    def callback(every: int) -> BaseCallback:
        return (
            CheckpointCallback(every, tmp_path)
            if name == "save_freq"
            else EvalCallback(Scores([1.0]), None, None, 1, every)
        )

    with pytest.warns(UserWarning, match=rf"{name}=20 counts vector steps.* were 10; num_timesteps is 30.*EveryNTime"):
        Agent().learn(10, callback(20))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Agent().learn(10, callback(31))  # too few of either
        Agent().learn(10, callback(10))  # it had its turn
        Agent().learn(10, EveryNTimesteps(20, callback(1)))


def test_a_checkpoint_folder_that_cannot_be_made_is_an_error_before_training(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    recorder = Recorder()
    with pytest.raises(OSError, match="file"):
        Agent().learn(1, [CheckpointCallback(1, tmp_path / "file" / "x"), recorder])
    assert recorder.n_calls == 0


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: CheckpointCallback(0, "x"), "save_freq=0"),
        (lambda: EveryNTimesteps(0, Recorder()), "n_steps=0"),
        (lambda: EvalCallback(Scores([1.0]), n_eval_episodes=0), "n_eval_episodes=0"),
    ],
)
def test_counts_below_one_are_refused(make: Any, name: str) -> None:
    with pytest.raises(ValueError, match=name):
        make()


def test_max_episodes_counts_for_each_environment(capsys: pytest.CaptureFixture[str]) -> None:
    callback = StopTrainingOnMaxEpisodes(3, verbose=1)
    assert Agent().learn(9, callback, dones=(True, False)) == 6
    assert callback.n_episodes == 6
    assert "after 18 steps and 6 episodes" in capsys.readouterr().out


def test_evaluations_are_logged_saved_and_the_best_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    agent, best, after = Agent(), Recorder(), Recorder()
    callback = EvalCallback(
        Scores([1.0, 2.0, 5.0, 6.0, 3.0, 4.0], success=True),
        callback_on_new_best=best,
        callback_after_eval=after,
        n_eval_episodes=2,
        eval_freq=2,
        log_path=tmp_path / "log",
        best_model_save_path=tmp_path / "best",
    )
    agent.learn(7, callback)
    assert agent.memory.dumps == [
        (step, {"eval/mean_reward": mean, "eval/mean_ep_length": 1.0, "eval/success_rate": 1.0} | total)
        for step, mean, total in (
            (6, 1.5, {"time/total_timesteps": 6}),
            (12, 5.5, {"time/total_timesteps": 12}),
            (18, 3.5, {"time/total_timesteps": 18}),
        )
    ]
    assert agent.saved == [str(tmp_path / "best" / "best_model")] * 2
    assert (callback.best_mean_reward, callback.last_mean_reward) == (5.5, 3.5)
    assert [entry for entry in best.seen if entry.startswith("step")] == ["step 6", "step 12"]
    assert [entry for entry in after.seen if entry.startswith("step")] == ["step 6", "step 12", "step 18"]
    assert best.seen[-1] == after.seen[-1] == "training_end"
    assert best.parent is after.parent is callback
    with np.load(tmp_path / "log" / "evaluations.npz") as stored:
        assert {name: stored[name].tolist() for name in stored.files} == {
            "timesteps": [6, 12, 18],
            "results": [[1.0, 2.0], [5.0, 6.0], [3.0, 4.0]],
            "ep_lengths": [[1, 1], [1, 1], [1, 1]],
            "successes": [[1.0, 1.0], [1.0, 1.0], [1.0, 1.0]],
        }
    assert [path.name for path in (tmp_path / "log").iterdir()] == ["evaluations.npz"]
    printed = capsys.readouterr().out
    assert "Eval num_timesteps=12, episode_reward=5.50 +/- 0.50" in printed
    assert "Success rate: 100.00%" in printed
    assert printed.count("New best mean reward!") == 2


def test_an_environment_that_does_not_speak_of_success_has_no_success_rate(tmp_path: Path) -> None:
    agent = Agent()
    agent.learn(1, EvalCallback(Scores([1.0]), eval_freq=1, log_path=tmp_path, verbose=0))
    assert "eval/success_rate" not in agent.memory.dumps[0][1]
    with np.load(tmp_path / "evaluations.npz") as stored:
        assert stored.files == ["timesteps", "results", "ep_lengths"]


def test_eval_freq_zero_never_evaluates() -> None:
    env = Scores([1.0])
    Agent().learn(3, EvalCallback(env, eval_freq=0))
    assert env.played == 0


def test_training_stops_once_the_threshold_is_reached(capsys: pytest.CaptureFixture[str]) -> None:
    stop = StopTrainingOnRewardThreshold(5.0, verbose=1)
    env = Scores([1.0, 4.9, 5.0, 9.0])
    assert Agent().learn(9, EvalCallback(env, stop, n_eval_episodes=1, eval_freq=1)) == 3
    assert "mean reward 5.00 has reached the threshold 5.0" in capsys.readouterr().out


def test_training_stops_after_more_evaluations_without_improvement_than_are_borne() -> None:
    # best so far: 1 3 3 3 3, so the third, fourth and fifth bring nothing new
    scores = [1.0, 3.0, 2.0, 2.0, 3.0, 9.0]
    stop = StopTrainingOnNoModelImprovement(max_no_improvement_evals=2)
    callback = EvalCallback(Scores(scores), callback_after_eval=stop, n_eval_episodes=1, eval_freq=1, verbose=0)
    assert Agent().learn(9, callback) == 5


def test_evaluations_before_min_evals_do_not_count() -> None:
    # best so far: 3 3 3 3 3; counting begins with the fourth
    stop = StopTrainingOnNoModelImprovement(max_no_improvement_evals=1, min_evals=3, verbose=1)
    callback = EvalCallback(Scores([3.0]), callback_after_eval=stop, n_eval_episodes=1, eval_freq=1, verbose=0)
    assert Agent().learn(9, callback) == 5


@pytest.mark.parametrize("stop", [StopTrainingOnRewardThreshold(1.0), StopTrainingOnNoModelImprovement(1)])
def test_what_reads_evaluations_needs_one_as_its_parent(stop: BaseCallback) -> None:
    with pytest.raises(ValueError, match=f"{type(stop).__name__} reads the results of an EvalCallback"):
        Agent().learn(1, stop)


@pytest.mark.parametrize("seed", [None, 7])
def test_environments_made_for_evaluation_are_seeded_kept_and_closed(seed: int | None) -> None:
    made: list[Scores] = []

    def make() -> Scores:
        made.append(Scores([1.0]))
        return made[-1]

    agent = Agent()
    agent.seed = seed
    callback = EvalCallback(make, n_eval_episodes=2, eval_freq=1, verbose=0)
    agent.learn(3, callback)
    first = [seed, None if seed is None else seed + 1]
    assert [env.seeds[0] for env in made] == first
    assert [env.seeds[1:] for env in made] == [[None] * 3] * 2
    assert [env.closed for env in made] == [True, True]
    agent.learn(1, callback)
    assert len(made) == 4
    assert all(env.closed for env in made)


def test_environments_made_for_evaluation_are_closed_after_an_error() -> None:
    made: list[Scores] = []

    def make() -> Scores:
        made.append(Scores([1.0]))
        return made[-1]

    def fail(locals_: Any, globals_: Any) -> bool:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Agent().learn(1, [EvalCallback(make), fail])
    assert made
    assert all(env.closed for env in made)


def test_an_environment_that_is_handed_in_is_neither_seeded_nor_closed() -> None:
    env, agent = Scores([1.0]), Agent()
    agent.seed = 7
    agent.learn(1, EvalCallback(env, n_eval_episodes=1, eval_freq=1, verbose=0))
    assert env.seeds == [None]
    assert not env.closed


def test_an_id_and_a_vector_environment_can_be_evaluated_in() -> None:
    agent = Agent()
    vector = gym.make_vec("CartPole-v1", 2, vectorization_mode="sync")
    for env in ("CartPole-v1", vector):
        agent.learn(1, EvalCallback(env, n_eval_episodes=3, eval_freq=1, verbose=0))
    assert [8 <= values["eval/mean_reward"] <= 11 for _, values in agent.memory.dumps] == [True, True]
    vector.close()


def test_the_agents_own_limit_ends_evaluations_where_nothing_else_does() -> None:
    class Endless(Scores):
        def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
            return np.zeros(1), 1.0, False, False, {}

    agent = Agent()
    agent.max_episode_steps = 5
    limited = gym.wrappers.TimeLimit(Endless([]), 8)
    for env in (Endless([]), limited):
        agent.learn(1, EvalCallback(env, n_eval_episodes=1, eval_freq=1, verbose=0))
    assert [values["eval/mean_ep_length"] for _, values in agent.memory.dumps] == [5.0, 8.0]


def test_the_training_environment_cannot_be_evaluated_in() -> None:
    class Slots:
        def __init__(self, env: Any) -> None:
            self.env = env

    agent, env = Agent(), Scores([1.0])
    for training in (env, Slots(env)):
        agent.env = training
        with pytest.raises(ValueError, match="is the training environment"):
            agent.learn(1, EvalCallback(env))


def test_what_is_no_environment_is_refused_at_construction() -> None:
    with pytest.raises(TypeError, match="expected an id, a spec, a function"):
        EvalCallback(3)  # type: ignore[arg-type]


def test_an_evaluation_draws_from_no_global_random_stream(tmp_path: Path) -> None:
    def states() -> Any:
        return random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()  # type: ignore[index] # noqa: NPY002

    before = states()
    Agent().learn(2, EvalCallback("CartPole-v1", eval_freq=1, log_path=tmp_path, verbose=0))
    assert states() == before


@pytest.fixture
def bars(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """The progress bars made while the test runs."""
    import tqdm

    made: list[Any] = []

    def make(*args: Any, **kwargs: Any) -> Any:
        made.append(original(*args, **kwargs))
        return made[-1]

    original = tqdm.tqdm
    monkeypatch.setattr(tqdm, "tqdm", make)
    yield made
    assert all(bar.disable for bar in made)  # as a closed bar is


def test_the_bar_counts_environment_steps_of_the_total(bars: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    agent = Agent()
    agent.num_timesteps = 100
    agent.ep_info_buffer.extend([{"r": 1.0, "l": 1}, {"r": 2.0, "l": 1}])
    agent.learn(4, ProgressBarCallback(), dones=(True, False))
    assert (bars[0].initial, bars[0].n, bars[0].total) == (100, 112, 112)
    printed = capsys.readouterr().err
    assert "112/112" in printed
    assert "step/s" in printed
    assert "reward=1.5" in printed


def test_the_bar_is_full_when_more_steps_than_the_total_were_taken(bars: list[Any]) -> None:
    agent = Agent()

    def shrink(locals_: Any, globals_: Any) -> None:
        bars[0].total = 4

    agent.learn(4, [shrink, ProgressBarCallback()])
    assert (bars[0].n, bars[0].total) == (12, 12)


def test_the_bar_is_closed_after_an_error(bars: list[Any]) -> None:
    def fail(locals_: Any, globals_: Any) -> bool:
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        Agent().learn(2, [fail, ProgressBarCallback()])
    assert len(bars) == 1


def test_a_bar_that_never_started_may_end() -> None:
    ProgressBarCallback().on_training_end()


def test_a_table_printed_beside_a_bar_is_whole(capsys: pytest.CaptureFixture[str]) -> None:
    logger = configure(None, ["stdout"])

    def dump(locals_: Any, globals_: Any) -> None:
        logger.record("x", 1)
        logger.dump()

    Agent().learn(1, [ProgressBarCallback(), dump])
    assert capsys.readouterr().out == "---------\n| x | 1 |\n---------\n"


def test_without_tqdm_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tqdm", None)
    with pytest.raises(ImportError, match=r"grpo_gym\[progress\]"):
        ProgressBarCallback()


def test_stable_baselines3_callbacks_run_on_our_agent(tmp_path: Path) -> None:
    callbacks = pytest.importorskip("stable_baselines3.common.callbacks")
    agent = Agent()
    checkpoint = callbacks.CheckpointCallback(2, str(tmp_path))
    stop = callbacks.StopTrainingOnRewardThreshold(5.0)
    every = callbacks.EveryNTimesteps(6, callbacks.ConvertCallback(lambda locals_, globals_: True))
    evaluation = EvalCallback(Scores([1.0, 2.0, 5.0]), stop, n_eval_episodes=1, eval_freq=2, verbose=0)
    assert agent.learn(9, [checkpoint, every, evaluation]) == 6
    assert agent.saved == [str(tmp_path / f"rl_model_{n}_steps.zip") for n in (6, 12, 18)]
    assert every.last_time_trigger == 18
