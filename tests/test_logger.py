import csv
import json
import resource
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]

from grpo_gym.logger import DISABLED, ERROR, Logger, configure, latest_run_folder, new_run_folder, open_run


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "progress.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def objects_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "progress.json").read_text().splitlines()]


def events_of(folder: Path) -> EventAccumulator:
    events = EventAccumulator(str(folder))
    events.Reload()
    return events


@contextmanager
def files_at_most(size: int) -> Iterator[None]:
    """Let no file grow beyond `size` bytes, as a full disk would."""
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        signal.signal(signal.SIGXFSZ, handler)


def test_the_table_is_grouped_by_prefix_and_boxed(capsys: pytest.CaptureFixture[str]) -> None:
    logger = configure(None, ["stdout"])
    logger.record("time/fps", 1200)
    logger.record("rollout/ep_rew_mean", 21.5)
    logger.record("rollout/ep_len_mean", np.float32(1234567.0))
    logger.record("note", "hello")
    logger.dump(7)
    assert capsys.readouterr().out == (
        "-----------------------------\n"
        "| note           | hello    |\n"
        "| rollout/       |          |\n"
        "|    ep_len_mean | 1.23e+06 |\n"
        "|    ep_rew_mean | 21.5     |\n"
        "| time/          |          |\n"
        "|    fps         | 1200     |\n"
        "-----------------------------\n"
    )


def test_keys_and_values_longer_than_36_characters_are_cut(capsys: pytest.CaptureFixture[str]) -> None:
    logger = configure(None, ["stdout"])
    logger.record("k" * 37, "v" * 37)
    logger.dump()
    assert capsys.readouterr().out.splitlines()[1] == f"| {'k' * 33}... | {'v' * 33}... |"


def test_every_format_gets_the_same_scalars(tmp_path: Path) -> None:
    logger = configure(tmp_path, ["log", "csv", "json", "tensorboard"])
    logger.record("a", torch.tensor(0.5, requires_grad=True))
    logger.record("b", np.int64(3))
    logger.record("c", "text, with a comma")
    logger.record("d", True)
    logger.record("e", None)
    logger.dump(40)
    logger.close()
    assert rows_of(tmp_path) == [{"a": "0.5", "b": "3", "c": "text, with a comma", "d": "True"}]
    assert objects_of(tmp_path) == [{"a": 0.5, "b": 3, "c": "text, with a comma", "d": True}]
    assert "| a | 0.5 " in (tmp_path / "log.txt").read_text()
    events = events_of(tmp_path)
    assert [(event.step, event.value) for event in events.Scalars("a")] == [(40, 0.5)]
    assert [(event.step, event.value) for event in events.Scalars("b")] == [(40, 3.0)]


def test_arrays_are_histograms_in_tensorboard_and_left_out_elsewhere(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    logger = configure(tmp_path)
    logger.record("array", np.array([1.0, 2.0, np.nan]))
    logger.record("tensor", torch.tensor([1, 2, 3]))
    logger.record("empty", np.array([]))
    logger.record("x", 1)
    logger.dump()
    logger.close()
    assert rows_of(tmp_path) == [{"x": "1"}]
    assert objects_of(tmp_path) == [{"x": 1}]
    assert "| array" not in capsys.readouterr().out
    events = events_of(tmp_path)
    assert events.Histograms("array")[0].histogram_value.num == 2
    assert events.Histograms("tensor")[0].histogram_value.sum == 6
    assert sorted(events.Tags()["histograms"]) == ["array", "tensor"]


@pytest.mark.parametrize("value", [[1, 2], {"a": 1}, np.array(["a"]), 1j, np.complex64(1), object()])
def test_what_no_format_can_write_is_refused_when_it_is_recorded(value: Any) -> None:
    with pytest.raises(TypeError, match=r"record\('x', ...\) got"):
        Logger(None, []).record("x", value)


def test_an_excluded_format_does_not_get_the_key(tmp_path: Path) -> None:
    logger = configure(tmp_path, ["csv", "json", "tensorboard"])
    logger.record("one", 1, exclude="tensorboard")
    logger.record("two", 2, exclude=("csv", "json"))
    logger.dump()
    logger.close()
    assert rows_of(tmp_path) == [{"one": "1"}]
    assert objects_of(tmp_path) == [{"one": 1}]
    assert events_of(tmp_path).Tags()["scalars"] == ["two"]


def test_record_keeps_the_last_value_and_record_mean_the_mean() -> None:
    logger = Logger(None, [])
    for value in (1.0, 2.0, 6.0):
        logger.record("last", value)
        logger.record_mean("mean", value)
    logger.record_mean("mean", None)
    assert logger.name_to_value == {"last": 6.0, "mean": 3.0}
    logger.dump()
    logger.record_mean("mean", 10.0)
    assert logger.name_to_value == {"mean": 10.0}


def test_an_empty_dump_writes_nothing(tmp_path: Path) -> None:
    logger = configure(tmp_path, ["csv", "json"])
    logger.dump()
    logger.close()
    assert (tmp_path / "progress.csv").read_text() == (tmp_path / "progress.json").read_text() == ""


def test_messages_below_the_level_are_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    logger = configure(None, ["stdout"])
    logger.debug("no")
    logger.info("information")
    logger.set_level(ERROR)
    logger.warn("no")
    logger.error("error")
    logger.set_level(DISABLED)
    logger.error("no")
    logger.record("x", 1)
    logger.dump()
    assert capsys.readouterr().out == "information\nerror\n"


def test_a_new_csv_column_leaves_the_earlier_rows_aligned(tmp_path: Path) -> None:
    logger = configure(tmp_path, ["csv"])
    for row in ({"a": 1}, {"b": "x,\n", "a": 2}, {"b": "y"}, {"c": 3}):
        for key, value in row.items():
            logger.record(key, value)
        logger.dump()
    logger.close()
    assert rows_of(tmp_path) == [
        {"a": "1", "b": "", "c": ""},
        {"a": "2", "b": "x,\n", "c": ""},
        {"a": "", "b": "y", "c": ""},
        {"a": "", "b": "", "c": "3"},
    ]


def test_the_same_folder_is_continued(tmp_path: Path) -> None:
    for step, key in ((1, "a"), (2, "b")):
        logger = configure(str(tmp_path), ["log", "csv", "json", "tensorboard"])
        logger.record("step", step)
        logger.record(key, 1)
        logger.dump(step)
        logger.close()
    assert rows_of(tmp_path) == [{"step": "1", "a": "1", "b": ""}, {"step": "2", "a": "", "b": "1"}]
    assert objects_of(tmp_path) == [{"step": 1, "a": 1}, {"step": 2, "b": 1}]
    assert (tmp_path / "log.txt").read_text().count("Logging to") == 2
    assert [event.step for event in events_of(tmp_path).Scalars("step")] == [1, 2]


def test_half_a_line_left_by_a_killed_run_is_cut_off(tmp_path: Path) -> None:
    (tmp_path / "progress.csv").write_text("a,b\n1,2\n3,")
    (tmp_path / "progress.json").write_text('{"a": 1}\n{"a"')
    logger = configure(tmp_path, ["csv", "json"])
    logger.record("a", 5)
    logger.dump()
    logger.close()
    assert rows_of(tmp_path) == [{"a": "1", "b": "2"}, {"a": "5", "b": ""}]
    assert objects_of(tmp_path) == [{"a": 1}, {"a": 5}]


def test_every_dump_is_on_disk_before_the_next(tmp_path: Path) -> None:
    logger = configure(tmp_path, ["csv", "json", "tensorboard"])
    for step in (1, 2, 3):
        logger.record("x", step)
        logger.dump(step)
        assert len(rows_of(tmp_path)) == len(objects_of(tmp_path)) == step
        assert [event.step for event in events_of(tmp_path).Scalars("x")] == list(range(1, step + 1))
    logger.close()


def test_close_ends_threads_and_may_be_called_again_and_dump_reopens(tmp_path: Path) -> None:
    before = threading.active_count()
    logger = configure(tmp_path, ["csv", "tensorboard"])
    logger.close()
    logger.close()
    assert threading.active_count() == before
    logger.record("x", 1)
    logger.dump(9)
    logger.close()
    assert threading.active_count() == before
    assert rows_of(tmp_path) == [{"x": "1"}]
    assert [event.step for event in events_of(tmp_path).Scalars("x")] == [9]


def test_a_full_disk_is_reported_once_for_each_format_and_leaves_whole_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # TensorBoard's writing thread dies of it, with a traceback of its own.
    monkeypatch.setattr(threading, "excepthook", lambda args: None)
    logger = configure(tmp_path, ["csv", "json", "tensorboard"])
    logger.record("x", 1)
    logger.dump(1)

    def dump_twice_on_a_full_disk() -> None:
        with files_at_most(10):
            for step in (2, 3):
                logger.record("x", 1234567890)
                logger.dump(step)

    with pytest.warns(RuntimeWarning, match="log could not be written") as caught:
        dump_twice_on_a_full_disk()
    assert sorted(str(warning.message).split()[1] for warning in caught) == ["csv", "json", "tensorboard"]
    logger.record("x", 4)
    logger.dump(4)
    logger.close()
    assert rows_of(tmp_path) == [{"x": "1"}, {"x": "4"}]
    assert objects_of(tmp_path) == [{"x": 1}, {"x": 4}]


def test_a_full_disk_while_the_csv_widens_keeps_the_old_file(tmp_path: Path) -> None:
    logger = configure(tmp_path, ["csv"])
    logger.record("a", 1)
    logger.dump()
    logger.record("b", 2)
    with pytest.warns(RuntimeWarning, match="csv log could not be written"), files_at_most(5):
        logger.dump()
    assert [path.name for path in tmp_path.iterdir()] == ["progress.csv"]
    logger.record("b", 3)
    logger.dump()
    logger.close()
    assert rows_of(tmp_path) == [{"a": "1", "b": ""}, {"a": "", "b": "3"}]


def test_any_writer_with_write_and_close_serves_as_a_format() -> None:
    class Memory:
        def __init__(self) -> None:
            self.seen: list[Any] = []

        def write(self, key_values: Any, key_excluded: Any, step: int = 0) -> None:
            self.seen.append((key_values, key_excluded, step))

        def close(self) -> None:
            self.seen.append("closed")

    memory = Memory()
    logger = Logger(None, [memory])
    logger.record("x", 1, exclude="csv")
    logger.log("not for a writer without write_sequence")
    logger.dump(3)
    logger.close()
    assert memory.seen == [({"x": 1}, {"x": ("csv",)}, 3), "closed"]


def test_an_unknown_format_is_answered_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'wandb'; known are stdout, log, csv, json, tensorboard"):
        configure(tmp_path / "new", ["stdout", "wandb"])
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("format_string", ["log", "csv", "json", "tensorboard"])
def test_a_file_where_the_folder_should_be_is_named(tmp_path: Path, format_string: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file/run"):
        configure(tmp_path / "file" / "run", [format_string])
    with pytest.raises(OSError, match="file"):
        configure(tmp_path / "file", [format_string])


def test_a_folder_where_a_file_should_be_is_named_and_nothing_stays_open(tmp_path: Path) -> None:
    (tmp_path / "progress.json").mkdir()
    before = threading.active_count()
    with pytest.raises(OSError, match=r"progress\.json"):
        configure(tmp_path, ["csv", "tensorboard", "json"])
    assert threading.active_count() == before


def test_only_stdout_needs_no_folder() -> None:
    assert configure(None, ["stdout"]).get_dir() is None


def test_files_without_a_folder_go_to_a_temporary_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    logger = configure(None, ["csv"])
    logger.close()
    assert logger.get_dir() == str(tmp_path / "grpo_gym_1")


def test_run_folders_count_on_from_the_highest(tmp_path: Path) -> None:
    assert latest_run_folder(tmp_path / "runs", "GRPO") is None
    assert new_run_folder(tmp_path / "runs", "GRPO") == tmp_path / "runs" / "GRPO_1"
    (tmp_path / "runs" / "GRPO_9").mkdir()
    (tmp_path / "runs" / "GRPO_old_50").mkdir()
    (tmp_path / "runs" / "GRPO_70").touch()
    assert latest_run_folder(tmp_path / "runs", "GRPO") == tmp_path / "runs" / "GRPO_9"
    assert new_run_folder(tmp_path / "runs", "GRPO") == tmp_path / "runs" / "GRPO_10"
    assert latest_run_folder(tmp_path / "runs", "GRPO") == tmp_path / "runs" / "GRPO_10"


def test_a_run_name_may_hold_folders_and_pattern_characters(tmp_path: Path) -> None:
    assert new_run_folder(tmp_path, "ant/v[5]*") == tmp_path / "ant" / "v[5]*_1"
    assert new_run_folder(tmp_path, "ant/v[5]*") == tmp_path / "ant" / "v[5]*_2"


def test_runs_started_together_get_a_folder_each(tmp_path: Path) -> None:
    found: list[Path] = []
    start = threading.Barrier(8)

    def run() -> None:
        start.wait()
        found.extend(new_run_folder(tmp_path, "run") for _ in range(5))

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(int(path.name[4:]) for path in found) == list(range(1, 41))


def test_a_run_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        new_run_folder(tmp_path / "file", "run")


def test_a_killed_run_leaves_files_that_parse(tmp_path: Path) -> None:
    program = f"""
import os, signal
from grpo_gym.logger import configure
logger = configure({str(tmp_path)!r}, ["csv", "json", "tensorboard"])
for step in range(1, 21):
    logger.record("x", step)
    logger.dump(step)
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", program], check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL
    assert len(rows_of(tmp_path)) == len(objects_of(tmp_path)) == 20
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert [event.step for event in events_of(tmp_path).Scalars("x")] == list(range(1, 21))


def test_a_training_run_logs_where_tensorboard_log_and_verbose_say(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    formats = []
    for root, verbose in ((None, 0), (None, 1), (tmp_path, 0), (tmp_path, 1)):
        logger = open_run(root, "GRPO", verbose=verbose)
        formats.append([type(output).__name__ for output in logger.output_formats])
        logger.close()
    screen, board = "HumanOutputFormat", "TensorBoardOutputFormat"
    assert formats == [[], [screen], [board], [screen, board]]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["GRPO_1", "GRPO_2"]
    assert capsys.readouterr().out == f"Logging to {tmp_path / 'GRPO_2'}\n"


def test_a_run_that_is_not_new_goes_on_in_the_latest_folder(tmp_path: Path) -> None:
    folders = []
    for new in (False, True, False):
        logger = open_run(tmp_path, "GRPO", new=new)
        folders.append(logger.get_dir())
        logger.close()
    assert folders == [str(tmp_path / "GRPO_1"), str(tmp_path / "GRPO_2"), str(tmp_path / "GRPO_2")]
