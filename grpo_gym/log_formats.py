"""The places a logger writes to: a table on the screen or in a file, csv, JSON lines, TensorBoard.

The class names, and `write(key_values, key_excluded, step)`, are those of stable-baselines3, so that a
writer made for the one works in the other. Everything is appended: a continued run continues its files.
"""

from __future__ import annotations

import csv
import io
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

Scalar = bool | int | float | str


class OutputFormat(Protocol):
    """What `Logger` asks of a writer. One with `write_sequence(texts)` gets the plain messages too."""

    def write(self, key_values: Mapping[str, Any], key_excluded: Mapping[str, tuple[str, ...]], step: int = 0) -> None:
        """Write one dump, without the keys whose exclusion names this format."""
        ...

    def close(self) -> None:
        """Release files and threads; a later `write` opens them again."""
        ...


def as_scalar(value: Any) -> Scalar | None:
    """Return a number or text as a plain Python value, and None for anything else."""
    if isinstance(value, np.ndarray | np.generic | torch.Tensor) and value.ndim == 0:
        value = value.item()
    return value if isinstance(value, bool | int | float | str) else None


def is_histogram(value: Any) -> bool:
    """Tell whether `value` is an array or a tensor of real numbers with at least one axis."""
    if isinstance(value, np.ndarray):
        return value.ndim > 0 and value.dtype.kind in "biuf"
    return isinstance(value, torch.Tensor) and value.ndim > 0 and not value.is_complex()


def kept(key_values: Mapping[str, Any], key_excluded: Mapping[str, tuple[str, ...]], name: str) -> dict[str, Any]:
    """Return the pairs that the format called `name` should write."""
    return {key: value for key, value in key_values.items() if name not in key_excluded.get(key, ())}


def kept_scalars(
    key_values: Mapping[str, Any], key_excluded: Mapping[str, tuple[str, ...]], name: str
) -> dict[str, Scalar]:
    """Return the pairs that the text format called `name` should write; arrays have no place in text."""
    scalars = {key: as_scalar(value) for key, value in kept(key_values, key_excluded, name).items()}
    return {key: value for key, value in scalars.items() if value is not None}


class AppendedFile:
    """A file of whole lines: what is written stands there entirely or not at all.

    Raises:
        OSError: at construction and at each write, if the file cannot be written; it names the path.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: io.FileIO | None = None
        self._open()

    def _open(self) -> io.FileIO:
        if self._file is None:
            # Unbuffered: what could not be written must not come back at the next flush, or at close.
            self._file = io.FileIO(self.path, "a+")
            self._file.seek(0)
            content = self._file.readall()
            # A run that was killed may have left half a line; what is appended to it would be lost too.
            self._file.truncate(content.rfind(b"\n") + 1)
        return self._file

    def write(self, text: str) -> None:
        """Append `text`; on failure cut what reached the disk off again."""
        file = self._open()
        before = os.fstat(file.fileno()).st_size
        rest = memoryview(text.encode())
        try:
            while rest:
                rest = rest[file.write(rest) :]
        except OSError:
            file.truncate(before)
            raise

    def replace(self, text: str) -> None:
        """Put `text` in the place of all that the file holds, as one step."""
        temporary = self.path.with_name(f".{self.path.name}.{os.getpid()}.tmp")
        try:
            temporary.write_text(text, encoding="utf-8", newline="")
            os.replace(temporary, self.path)
        finally:
            temporary.unlink(missing_ok=True)
        self.close()
        self._open()

    def close(self) -> None:
        """Close the file; the next write opens it again."""
        if self._file is not None:
            self._file.close()
            self._file = None


class HumanOutputFormat:
    """A boxed table, grouped by what stands before the `/` of a key, on the screen or in a file.

    Args:
        path: the file to append to; None prints to whatever `sys.stdout` is at that moment.
        max_length: longer keys and values are cut to this many characters.
    """

    def __init__(self, path: Path | None = None, max_length: int = 36) -> None:
        self.name = "stdout" if path is None else "log"
        self.max_length = max_length
        self._file = None if path is None else AppendedFile(path)

    def write(self, key_values: Mapping[str, Any], key_excluded: Mapping[str, tuple[str, ...]], step: int = 0) -> None:
        """Write one table; nothing if it would be empty."""
        groups: dict[str, list[tuple[str, Scalar]]] = {}
        for key, value in sorted(kept_scalars(key_values, key_excluded, self.name).items()):
            group, slash, rest = key.partition("/")
            grouped = bool(group and slash)
            groups.setdefault(f"{group}/" if grouped else "", []).append((rest if grouped else key, value))
        rows: list[tuple[str, str]] = []
        for group, members in sorted(groups.items()):
            rows += [(self._cut(group), "")] if group else []
            indent = "   " if group else ""
            rows += [(self._cut(indent + key), self._cut(_shown(value))) for key, value in members]
        if rows:
            key_width, value_width = (max(map(len, column)) for column in zip(*rows, strict=True))
            dashes = "-" * (key_width + value_width + 7)
            body = [f"| {key:<{key_width}} | {value:<{value_width}} |" for key, value in rows]
            self._print("\n".join([dashes, *body, dashes]))

    def write_sequence(self, sequence: Sequence[str]) -> None:
        """Write a plain message."""
        self._print(" ".join(sequence))

    def close(self) -> None:
        """Close the file, if there is one."""
        if self._file is not None:
            self._file.close()

    def _cut(self, text: str) -> str:
        return text if len(text) <= self.max_length else text[: self.max_length - 3] + "..."

    def _print(self, text: str) -> None:
        if self._file is None:
            to_screen(text)
        else:
            self._file.write(text + "\n")


def to_screen(text: str) -> None:
    """Print without breaking a progress bar: tqdm moves it out of the way and draws it again below."""
    tqdm = getattr(sys.modules.get("tqdm"), "tqdm", None)
    if tqdm is None:
        print(text)
    else:
        tqdm.write(text, file=sys.stdout)
    sys.stdout.flush()


def _shown(value: Scalar) -> str:
    return f"{value:<8.3g}" if isinstance(value, float) else str(value)


class JSONOutputFormat:
    """One JSON object a line. NaN and infinities are written as Python's `json` writes and reads them."""

    name = "json"

    def __init__(self, path: Path) -> None:
        self._file = AppendedFile(path)

    def write(self, key_values: Mapping[str, Any], key_excluded: Mapping[str, tuple[str, ...]], step: int = 0) -> None:
        """Append one line."""
        row = kept_scalars(key_values, key_excluded, self.name)
        if row:
            self._file.write(json.dumps(row) + "\n")

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class CSVOutputFormat:
    """A row a dump under one header. A key seen for the first time widens the header and every row."""

    name = "csv"

    def __init__(self, path: Path) -> None:
        self._file = AppendedFile(path)
        with path.open(newline="", encoding="utf-8") as file:
            self.keys: list[str] = next(csv.reader(file), [])

    def write(self, key_values: Mapping[str, Any], key_excluded: Mapping[str, tuple[str, ...]], step: int = 0) -> None:
        """Append one row; cells without a value stay empty."""
        row = kept_scalars(key_values, key_excluded, self.name)
        fresh = [key for key in row if key not in self.keys]
        if fresh:
            self._widen(fresh)
        if row:
            self._file.write(_csv_lines([[row.get(key, "") for key in self.keys]]))

    def _widen(self, fresh: list[str]) -> None:
        with self._file.path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.reader(file))[1:]
        keys = self.keys + fresh
        self._file.replace(_csv_lines([keys, *(row + [""] * (len(keys) - len(row)) for row in rows)]))
        self.keys = keys

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _csv_lines(rows: Sequence[Sequence[Scalar]]) -> str:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


class TensorBoardOutputFormat:
    """Scalars, texts, and histograms of arrays and tensors, on disk at the end of each dump.

    After a failed write it stays silent until it is closed: TensorBoard's thread does not survive one.
    """

    name = "tensorboard"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._writer: Any = None
        self._failed = False
        _ = self.writer

    @property
    def writer(self) -> Any:
        """The `torch.utils.tensorboard.SummaryWriter`, for figures, images and whatever else it can do."""
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(log_dir=str(self.folder))
        return self._writer

    def write(self, key_values: Mapping[str, Any], key_excluded: Mapping[str, tuple[str, ...]], step: int = 0) -> None:
        """Write one dump as of environment step `step`."""
        if self._failed:
            return
        try:
            for key, value in kept(key_values, key_excluded, self.name).items():
                scalar = as_scalar(value)
                if isinstance(scalar, str):
                    self.writer.add_text(key, scalar, step)
                elif scalar is not None:
                    self.writer.add_scalar(key, scalar, step)
                else:
                    self._add_histogram(key, value, step)
            self.writer.flush()
        except OSError:
            self._failed = True
            raise

    def _add_histogram(self, key: str, value: Any, step: int) -> None:
        numbers = torch.as_tensor(value).detach().to("cpu", torch.float64)
        numbers = numbers[numbers.isfinite()]  # TensorBoard cannot bin the others
        if numbers.numel():
            self.writer.add_histogram(key, numbers, step)

    def close(self) -> None:
        """Flush, and end the thread that writes; the next `write` starts a new event file."""
        writer, self._writer, self._failed = self._writer, None, False
        if writer is not None:
            writer.close()
