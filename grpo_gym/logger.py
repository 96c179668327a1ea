"""What a run writes down: recorded values, dumped together, and the folder they go to."""

from __future__ import annotations

import re
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from grpo_gym.log_formats import (
    CSVOutputFormat,
    HumanOutputFormat,
    JSONOutputFormat,
    OutputFormat,
    TensorBoardOutputFormat,
    as_scalar,
    is_histogram,
)

__all__ = [
    "DEBUG",
    "DISABLED",
    "ERROR",
    "INFO",
    "WARN",
    "CSVOutputFormat",
    "HumanOutputFormat",
    "JSONOutputFormat",
    "Logger",
    "OutputFormat",
    "TensorBoardOutputFormat",
    "configure",
    "latest_run_folder",
    "new_run_folder",
    "open_run",
]

DEBUG, INFO, WARN, ERROR, DISABLED = 10, 20, 30, 40, 50

_MAKERS: dict[str, Callable[[Path], OutputFormat]] = {
    "stdout": lambda folder: HumanOutputFormat(),
    "log": lambda folder: HumanOutputFormat(folder / "log.txt"),
    "csv": lambda folder: CSVOutputFormat(folder / "progress.csv"),
    "json": lambda folder: JSONOutputFormat(folder / "progress.json"),
    "tensorboard": TensorBoardOutputFormat,
}


class Logger:
    """Keeps named values until `dump` writes them to every output format.

    A format that cannot write (a full disk) is reported once, as a `RuntimeWarning`; the run goes on.

    Args:
        folder: where the files lie; None if there are none.
        output_formats: the writers; anything with `write(key_values, key_excluded, step)` and `close()`.
    """

    def __init__(self, folder: str | PathLike[str] | None, output_formats: Sequence[OutputFormat]) -> None:
        self.name_to_value: dict[str, Any] = {}
        self.name_to_count: dict[str, int] = {}
        self.name_to_excluded: dict[str, tuple[str, ...]] = {}
        self.level = INFO
        self.dir = None if folder is None else str(folder)
        self.output_formats = list(output_formats)
        self._reported: set[int] = set()

    def record(self, key: str, value: Any, exclude: str | tuple[str, ...] | None = None) -> None:
        """Keep `value` under `key` until the next `dump`; a later value takes the place of an earlier one.

        Args:
            key: the name; what stands before a `/` groups it in the table.
            value: a number, a text or None (nothing is kept). An array or a tensor with axes becomes a
                histogram in TensorBoard and is left out elsewhere.
            exclude: the format or formats not to write it to, e.g. `"tensorboard"`.

        Raises:
            TypeError: if no format could write the value.
        """
        if value is None:
            return
        if as_scalar(value) is None and not is_histogram(value):
            raise TypeError(
                f"record({key!r}, ...) got {type(value).__name__}; a number, a text, or a real array or tensor "
                "was expected. Figures and images go to TensorBoardOutputFormat.writer directly"
            )
        self.name_to_value[key] = value
        self.name_to_excluded[key] = (exclude,) if isinstance(exclude, str) else (exclude or ())

    def record_mean(self, key: str, value: float | None, exclude: str | tuple[str, ...] | None = None) -> None:
        """Like `record`, but keep the mean of all the values given since the last `dump`."""
        if value is None:
            return
        count = self.name_to_count.get(key, 0)
        mean = self.name_to_value[key] if count else 0.0
        self.record(key, mean + (value - mean) / (count + 1), exclude)
        self.name_to_count[key] = count + 1

    def dump(self, step: int = 0) -> None:
        """Write what was recorded, as of environment step `step`, and forget it."""
        values, excluded = dict(self.name_to_value), dict(self.name_to_excluded)
        self.name_to_value.clear()
        self.name_to_count.clear()
        self.name_to_excluded.clear()
        if not values or self.level >= DISABLED:
            return
        for output in self.output_formats:
            self._attempt(output, output.write, values, excluded, step)

    def log(self, *args: Any, level: int = INFO) -> None:
        """Write a message to the screen and to `log.txt`, if `level` is at least the one that was set."""
        if self.level > level:
            return
        for output in self.output_formats:
            write_sequence = getattr(output, "write_sequence", None)
            if write_sequence is not None:
                self._attempt(output, write_sequence, [str(arg) for arg in args])

    def debug(self, *args: Any) -> None:
        """`log` at level DEBUG, 10."""
        self.log(*args, level=DEBUG)

    def info(self, *args: Any) -> None:
        """`log` at level INFO, 20."""
        self.log(*args, level=INFO)

    def warn(self, *args: Any) -> None:
        """`log` at level WARN, 30."""
        self.log(*args, level=WARN)

    def error(self, *args: Any) -> None:
        """`log` at level ERROR, 40."""
        self.log(*args, level=ERROR)

    def set_level(self, level: int) -> None:
        """Leave out messages below `level`; DISABLED, 50, silences the dumps too."""
        self.level = level

    def get_dir(self) -> str | None:
        """Return the folder of the files."""
        return self.dir

    def close(self) -> None:
        """Close every format; may be called again. A later `dump` opens them again and appends."""
        for output in self.output_formats:
            self._attempt(output, output.close)

    def _attempt(self, output: OutputFormat, action: Callable[..., None], *args: Any) -> None:
        try:
            action(*args)
        except OSError as error:
            if id(output) not in self._reported:
                self._reported.add(id(output))
                warnings.warn(
                    f"the {getattr(output, 'name', type(output).__name__)} log could not be written "
                    f"({error}). The run goes on; further failures of this log are not reported",
                    RuntimeWarning,
                    stacklevel=3,
                )


def configure(
    folder: str | PathLike[str] | None = None,
    format_strings: Sequence[str] = ("stdout", "log", "csv", "json", "tensorboard"),
) -> Logger:
    """Make a logger that writes to `folder`; the files of an earlier run there are continued.

    Args:
        folder: made if need be. None: a new folder under the system's temporary one, if any file is asked for.
        format_strings: any of `stdout`, `log` (log.txt), `csv` (progress.csv), `json` (progress.json, one
            object a line) and `tensorboard`.

    Raises:
        ValueError: on an unknown format.
        OSError: if the folder or a file in it cannot be written; it names the path.
    """
    names = list(dict.fromkeys(format_strings))
    unknown = [name for name in names if name not in _MAKERS]
    if unknown:
        raise ValueError(f"unknown log format {unknown[0]!r}; known are {', '.join(_MAKERS)}")
    writes_files = set(names) - {"stdout"}
    if folder is None and writes_files:
        folder = new_run_folder(tempfile.gettempdir(), "grpo_gym")
    path = None if folder is None else _made(Path(folder))
    logger = Logger(path, [])
    try:
        for name in names:
            logger.output_formats.append(_MAKERS[name](path or Path()))
    except Exception:
        logger.close()
        raise
    if writes_files:
        logger.log(f"Logging to {path}")
    return logger


def open_run(root: str | PathLike[str] | None, name: str, new: bool = True, verbose: int = 0) -> Logger:
    """Make the logger of a training run, as stable-baselines3's agents do for `tensorboard_log` and `verbose`.

    Args:
        root: folder of all the TensorBoard runs; None for none.
        name: of the run; its folder is `{root}/{name}_{k}`.
        new: make a new folder; False continues the latest, if there is one.
        verbose: from 1 on, tables are printed.

    Raises:
        OSError: if the folder cannot be written; it names the path.
    """
    format_strings = ["stdout"] if verbose >= 1 else []
    if root is None:
        return configure(None, format_strings)
    folder = None if new else latest_run_folder(root, name)
    return configure(folder or new_run_folder(root, name), [*format_strings, "tensorboard"])


def new_run_folder(root: str | PathLike[str], name: str) -> Path:
    """Make `{root}/{name}_{k}` with k one above the highest there is, starting at 1.

    Processes that start together get a folder each: `mkdir` decides who was first.

    Raises:
        OSError: if `root` cannot be written; it names the path.
    """
    base = Path(root) / name
    _made(base.parent)
    k = max((number for number, _ in _runs(base)), default=0)
    while True:
        k += 1
        folder = base.with_name(f"{base.name}_{k}")
        try:
            folder.mkdir()
        except FileExistsError:
            continue
        return folder


def latest_run_folder(root: str | PathLike[str], name: str) -> Path | None:
    """Return the `{root}/{name}_{k}` with the highest k, to continue that run; None if there is none."""
    return max(_runs(Path(root) / name), default=(0, None))[1]


def _runs(base: Path) -> Iterator[tuple[int, Path]]:
    if not base.parent.is_dir():
        return
    for entry in base.parent.iterdir():
        found = re.fullmatch(re.escape(base.name) + "_([0-9]+)", entry.name)
        if found and entry.is_dir():
            yield int(found[1]), entry


def _made(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = error.strerror or "unknown reason"
        raise OSError(error.errno, f"no log folder can be made here: {reason}", str(folder)) from error
    return folder


def record_iteration(logger: Logger, stats: Mapping[str, float], counts: Mapping[str, float], advantages: Any) -> None:
    """Hand the logger an iteration.

    Args:
        logger: it is not dumped.
        stats: for every format.
        counts: not for TensorBoard, whose axes they are.
        advantages: a tensor, for TensorBoard alone: a histogram. None for none.
    """
    for key, value in stats.items():
        logger.record(key, value)
    for key, value in counts.items():
        logger.record(key, value, exclude="tensorboard")
    if advantages is not None:
        logger.record("rollout/advantages", advantages, exclude=("stdout", "log", "csv", "json"))
