"""Agents on disk: a zip of JSON and tensors, replaced in one piece, and read without running what it holds.

Members, stored uncompressed: `data` (JSON), `policy.pth`, `policy.optimizer.pth`, `streams.pth` (each written by
`torch.save`, read by `torch.load(weights_only=True)` and by nothing else), and for people `_grpo_gym_version`
and `system_info.txt`. Whoever reads a file of the same format number ignores members that it does not know.
"""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import platform
import secrets
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import IO, Any

import gymnasium
import numpy as np
import torch
from torch import Tensor

import grpo_gym

FORMAT = 1
"""Raised by one whenever the versions before can no longer understand a file."""

MAX_JSON_BYTES = 8 * 1024**2
MAX_BYTES = 1024**3
_TENSORS = ("policy.pth", "policy.optimizer.pth", "streams.pth")
_TEXTS = ("data", "_grpo_gym_version", "system_info.txt")
_ADVICE = "copy it again, or use an earlier checkpoint"


@dataclass(frozen=True)
class Checkpoint:
    """Everything an agent is.

    Args:
        data: JSON: constructor arguments, counters, spaces, states of NumPy generators.
        policy: the network's state dict.
        optimizer: the optimiser's state dict.
        streams: states of torch generators, and other tensors that are no weights.
        system_info: versions of the process that wrote the file; filled by `read_checkpoint`.
    """

    data: dict[str, Any]
    policy: dict[str, Tensor]
    optimizer: dict[str, Any]
    streams: dict[str, Tensor]
    system_info: str = ""


def system_info() -> str:
    """Return the versions that matter when a file behaves differently elsewhere, one `name: value` a line."""
    libraries = "".join(f"{library.__name__}: {library.__version__}\n" for library in (torch, np, gymnasium, grpo_gym))
    return f"system: {platform.platform()}\npython: {platform.python_version()}\n{libraries}"


def checkpoint_path(path: str | PathLike[str]) -> Path:
    """Return where a checkpoint called `path` is: ".zip" is appended unless it is there.

    "model_v1.5" is "model_v1.5.zip": what follows the last dot is no suffix to anyone but us.

    Raises:
        ValueError: if `path` names no file, such as "" or "..".
    """
    asked = Path(os.fsdecode(path))
    if asked.name in ("", ".."):
        raise ValueError(f"path={str(path)!r} names no file; expected one like 'models/agent.zip'")
    return asked if asked.suffix.lower() == ".zip" else asked.with_name(f"{asked.name}.zip")


def write_checkpoint(target: str | PathLike[str] | IO[bytes], checkpoint: Checkpoint) -> None:
    """Write a checkpoint, so that at any moment, power cuts included, the file is the old or the new one.

    The same checkpoint always makes the same bytes. They are read back once, in memory, before anything on disk
    is touched: a file that could not be loaded is never written.

    Args:
        target: ".zip" is appended if missing; parent folders are made. Or a binary file object.
        checkpoint: what to write.

    Raises:
        OSError: if it cannot be written, naming the path; the old file, if any, is whole.
        TypeError: if the file object is not binary.
        ValueError: if `data` is not JSON, or the result could not be read back; nothing was written.
    """
    content = _pack(checkpoint)
    if not isinstance(target, str | PathLike):
        _refuse_text(target)
        written = target.write(content)
        if written is not None and written < len(content):
            raise OSError(errno.EIO, f"{target!r} took {written} of {len(content)} bytes: give it a buffer")
        return
    path = checkpoint_path(target)
    try:
        replace_file(path, content)
    except OSError as error:
        # most of them name the temporary file, or none
        raise OSError(error.errno, f"the agent was not saved ({error.strerror})", str(path)) from error


def _refuse_text(file: IO[Any]) -> None:
    if isinstance(file, io.TextIOBase):
        raise TypeError(f"{file!r} is a text file, expected a binary one: add 'b' to the mode it is opened with")


def replace_file(path: Path, content: bytes) -> None:
    """Write a file in one piece: at any moment it is the old or the new one. Parent folders are made.

    Raises:
        OSError: if it cannot be written; the old file, if any, is whole.
    """
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, "there is a folder of that name")
    path = Path(os.path.realpath(path))  # a link stays a link, its target is replaced
    path.parent.mkdir(parents=True, exist_ok=True)
    # beside the target, for a rename cannot leave the file system; plain open, for tempfile ignores the umask
    temporary = path.with_name(f".{path.name[:40]}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def _pack(checkpoint: Checkpoint) -> bytes:
    members = {
        "data": json.dumps({"format": FORMAT, "data": _checked(checkpoint.data)}).encode(),
        "policy.pth": _saved(checkpoint.policy),
        "policy.optimizer.pth": _saved(_without_numpy(checkpoint.optimizer)),
        "streams.pth": _saved(checkpoint.streams),
        "_grpo_gym_version": grpo_gym.__version__.encode(),
        "system_info.txt": system_info().encode(),
    }
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, member in members.items():
            info = zipfile.ZipInfo(name)  # dated 1980: the time of day would make equal checkpoints differ
            info.external_attr = 0o644 << 16
            archive.writestr(info, member)
    _unpack("this checkpoint, had it been written", content, len(content.getvalue()))
    return content.getvalue()


def _checked(data: dict[str, Any]) -> dict[str, Any]:
    """Return `data` if JSON keeps it as it is: a tuple would come back as a list, the key 1 as "1"."""
    for name, value in data.items():
        with _explained(f"data[{name!r}]", "is not JSON: pass it through encode_value"):
            if json.loads(json.dumps({name: value}, allow_nan=False)) != {name: value}:
                raise TypeError("it would not come back as it is")
    return data


def _saved(state: Any) -> bytes:
    content = io.BytesIO()
    torch.save(state, content)
    return content.getvalue()


def _without_numpy(state: Any) -> Any:
    """Make NumPy's scalars Python's: a learning rate may be one, and `weights_only` would refuse the file."""
    if isinstance(state, dict):
        return {key: _without_numpy(value) for key, value in state.items()}
    if isinstance(state, list | tuple):
        values = [_without_numpy(value) for value in state]
        return values if isinstance(state, list) else tuple(values)
    return state.item() if isinstance(state, np.generic) else state


def read_checkpoint(
    source: str | PathLike[str] | IO[bytes],
    device: str | torch.device = "cpu",
    custom_objects: dict[str, Any] | None = None,
    max_bytes: int = MAX_BYTES,
) -> Checkpoint:
    """Read a checkpoint. Nothing in it is run, whoever wrote it.

    Args:
        source: what `write_checkpoint` was given; or the file as it is, if it has no ".zip".
        device: where the policy's tensors go. The others stay on the CPU: an optimiser moves its own, and
            torch's generators want it so.
        custom_objects: entries of `data` to use as they are, whatever the file has under their names.
        max_bytes: refuse files that are larger once unpacked.

    Raises:
        FileNotFoundError: if there is no such file; names the path tried.
        OSError: if it cannot be opened.
        ValueError: if it is damaged, too large, of a newer format, or something else altogether.
    """
    with _opened(source, max_bytes) as (name, file):
        checkpoint = _unpack(name, file, max_bytes)
    checkpoint.data.update(custom_objects or {})
    for key, tensor in checkpoint.policy.items():
        checkpoint.policy[key] = tensor.to(device)
    return checkpoint


@contextlib.contextmanager
def _opened(source: str | PathLike[str] | IO[bytes], max_bytes: int) -> Iterator[tuple[str, IO[bytes]]]:
    if not isinstance(source, str | PathLike):
        _refuse_text(source)
        yield repr(source), source if source.seekable() else io.BytesIO(source.read(max_bytes + 1))
        return
    path, as_given = checkpoint_path(source), Path(os.fsdecode(source))
    if not path.exists() and as_given.is_file():
        path = as_given
    if not path.exists():
        raise FileNotFoundError(errno.ENOENT, f"no checkpoint (in {os.getcwd()})", str(path))
    with path.open("rb") as file:
        yield str(path), file


def _unpack(name: str, file: IO[bytes], max_bytes: int) -> Checkpoint:
    with _explained(name, f"is truncated or corrupt, or no zip archive at all; {_ADVICE}"):
        archive = zipfile.ZipFile(file)
    with archive:
        members = _members(name, archive, max_bytes)
    data = _data(name, members) if "data" in members else {}
    # after the format number: a newer format may have other members
    if missing := ", ".join(member for member in ("data", *_TENSORS) if member not in members):
        raise ValueError(f"{name}: truncated or corrupt, or none of ours: it has no member {missing}; {_ADVICE}")
    policy, optimizer, streams = (_tensors(name, member, members[member]) for member in _TENSORS)
    info = members.get("system_info.txt", b"").decode(errors="replace")
    return Checkpoint(data, policy, optimizer, streams, info)


def _members(name: str, archive: zipfile.ZipFile, max_bytes: int) -> dict[str, bytes]:
    """Read the members that we know, once their sizes are known to be decent. Nothing is ever extracted."""
    infos = {info.filename: info for info in archive.infolist() if info.filename in (*_TEXTS, *_TENSORS)}
    if "_grpo_gym_version" not in infos and "_stable_baselines3_version" in archive.namelist():
        raise ValueError(
            f"{name}: this is a stable-baselines3 file: load it with the stable_baselines3 class that saved it; "
            "its agents have a critic, and cannot become agents of grpo_gym"
        )
    for known, limit in ((_TEXTS, MAX_JSON_BYTES), ((*_TEXTS, *_TENSORS), max_bytes)):
        size = sum(info.file_size for member, info in infos.items() if member in known)
        if size > limit:
            much = f"{', '.join(known)} would unpack to {size:,} bytes, more than the {limit:,} allowed"
            raise ValueError(f"{name}: {much}; if you trust it, read_checkpoint takes max_bytes for the tensors")
    members = {}
    for member, info in infos.items():
        with _explained(name, f"member {member} is truncated or corrupt; {_ADVICE}"):
            # the other methods unpack as much as they please before they tell
            if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise ValueError(f"packed by method {info.compress_type}, expected stored or deflated")
            with archive.open(info) as file:
                members[member] = file.read(info.file_size)  # read() would unpack all before it looks at the size
    return members


def _data(name: str, members: dict[str, bytes]) -> Any:
    with _explained(name, f"member data is not the JSON of an agent; {_ADVICE}"):
        content = json.loads(members["data"])
        number, data = content["format"], content.get("data")
        if not isinstance(number, int) or number < 1 or (number == FORMAT and not isinstance(data, dict)):
            raise ValueError(f"format {number!r}, expected from 1 on; data {type(data)}, expected a dict")
    if number > FORMAT:
        version = members.get("_grpo_gym_version", b"?").decode(errors="replace")[:40]
        raise ValueError(
            f"{name}: written by version {version} of grpo_gym in format {number}; this is version "
            f"{grpo_gym.__version__} and reads formats up to {FORMAT}: upgrade with `pip install -U grpo_gym`"
        )
    return data


def _tensors(name: str, member: str, content: bytes) -> dict[str, Any]:
    expected = f"member {member} holds more than tensors and plain values, or is corrupt; nothing of it was used"
    with _explained(name, expected):
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            if sum(info.file_size for info in archive.infolist()) > len(content):
                raise ValueError("its parts are larger than itself")
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        if not isinstance(state, dict):
            raise TypeError(f"it is a {type(state).__name__}, expected a dict")
        if member != "policy.optimizer.pth":
            for key, tensor in state.items():
                if not isinstance(key, str) or not isinstance(tensor, Tensor):
                    raise TypeError(f"{key!r} is a {type(tensor).__name__}, expected a tensor")
    return state


@contextlib.contextmanager
def _explained(name: str, problem: str) -> Iterator[None]:
    """Turn whatever a hostile or broken file provokes into one ValueError, from its cause."""
    try:
        yield
    except Exception as error:
        # torch's own text ends in advice to switch the protection off: its first sentence will do
        cause = str(error).partition(". ")[0][:200]
        raise ValueError(f"{name}: {problem} ({type(error).__name__}: {cause})") from error
