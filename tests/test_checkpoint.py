import io
import json
import os
import pickle
import random
import resource
import signal
import stat
import subprocess
import sys
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from grpo_gym.checkpoint import FORMAT, Checkpoint, read_checkpoint, system_info, write_checkpoint
from grpo_gym.encoding import Unsaved, decode_value, encode_value

TENSOR_MEMBERS = ["policy.pth", "policy.optimizer.pth", "streams.pth"]
REQUIRED = ["data", *TENSOR_MEMBERS]


def a_checkpoint(seed: int = 0) -> Checkpoint:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.nn.Parameter(torch.randn(40, 40, generator=generator))
    optimizer = torch.optim.Adam([weight], lr=1e-3, betas=(0.5, 0.75))
    (weight**2).sum().backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    data = {"gamma": 0.99, "seed": seed, "num_timesteps": 2048, "note": "größer"}
    return Checkpoint(data, {"net.weight": weight.detach()}, optimizer.state_dict(), {"actions": generator.get_state()})


def assert_same(first: Checkpoint, second: Checkpoint) -> None:
    assert first.data == second.data
    for name in ("policy", "optimizer", "streams"):
        assert_same_state(getattr(first, name), getattr(second, name))


def assert_same_state(first: Any, second: Any) -> None:
    assert type(first) is type(second)
    if isinstance(first, torch.Tensor):
        assert first.dtype == second.dtype
        assert torch.equal(first, second)
    elif isinstance(first, dict):
        assert list(first) == list(second)
        for key in first:
            assert_same_state(first[key], second[key])
    elif isinstance(first, list | tuple):
        assert len(first) == len(second)
        for one, other in zip(first, second, strict=True):
            assert_same_state(one, other)
    else:
        assert first == second


def contents(checkpoint: Checkpoint) -> bytes:
    file = io.BytesIO()
    write_checkpoint(file, checkpoint)
    return file.getvalue()


def members_of(checkpoint: Checkpoint) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(contents(checkpoint))) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def zipped(members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> io.BytesIO:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, content in members.items():
            info = zipfile.ZipInfo(name)
            info.compress_type = method
            archive.writestr(info, content)
    return file


def torch_bytes(state: Any, new_format: bool = True) -> bytes:
    file = io.BytesIO()
    torch.save(state, file, _use_new_zipfile_serialization=new_format)
    return file.getvalue()


class Writes:
    """Unpickled, it writes a file."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> Any:
        return Path.write_text, (self.path, "code was run")


def a_pickle(payload: Any) -> bytes:
    return pickle.dumps(payload)


def a_torch_file(payload: Any) -> bytes:
    return torch_bytes({"net.weight": payload})


def a_legacy_torch_file(payload: Any) -> bytes:
    return torch_bytes({"net.weight": payload}, new_format=False)


def an_array_of_objects(payload: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, np.array([payload], dtype=object), allow_pickle=True)
    return file.getvalue()


# --- what is written comes back -------------------------------------------------------------------------------


def test_a_checkpoint_comes_back_as_it_was(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "agent", a_checkpoint())
    assert_same(read_checkpoint(tmp_path / "agent"), a_checkpoint())


def test_the_file_has_the_members_of_stable_baselines3_and_they_are_stored() -> None:
    with zipfile.ZipFile(io.BytesIO(contents(a_checkpoint()))) as archive:
        assert [info.filename for info in archive.infolist()] == [
            "data",
            "policy.pth",
            "policy.optimizer.pth",
            "streams.pth",
            "_grpo_gym_version",
            "system_info.txt",
        ]
        assert all(info.compress_type == zipfile.ZIP_STORED for info in archive.infolist())
        assert json.loads(archive.read("data"))["format"] == FORMAT == 1


def test_the_same_checkpoint_makes_the_same_bytes() -> None:
    assert contents(a_checkpoint()) == contents(a_checkpoint())
    assert contents(a_checkpoint(0)) != contents(a_checkpoint(1))


def test_writing_changes_neither_the_checkpoint_nor_a_global_generator(tmp_path: Path) -> None:
    given = a_checkpoint()
    before = torch.get_rng_state().tolist(), str(np.random.get_state()), random.getstate()  # noqa: NPY002
    write_checkpoint(tmp_path / "agent", given)
    read_checkpoint(tmp_path / "agent")
    assert_same(given, a_checkpoint())
    assert (torch.get_rng_state().tolist(), str(np.random.get_state()), random.getstate()) == before  # noqa: NPY002


@pytest.mark.parametrize("kind", [np.random.PCG64, np.random.MT19937, np.random.Philox, np.random.SFC64])
def test_a_numpy_generator_goes_on_where_it_was(kind: Callable[[int], np.random.BitGenerator]) -> None:
    generator = np.random.Generator(kind(7))
    generator.integers(100, size=3, dtype=np.int32)  # an odd number of halves: one is left over, and kept
    file = io.BytesIO()
    write_checkpoint(file, replace(a_checkpoint(), data={"plan": encode_value(generator.bit_generator.state)}))
    restored = np.random.Generator(kind(0))
    restored.bit_generator.state = decode_value(read_checkpoint(file).data["plan"])
    assert restored.integers(1_000_000, size=9, dtype=np.int32).tolist() == (
        generator.integers(1_000_000, size=9, dtype=np.int32).tolist()
    )


def test_a_torch_generator_goes_on_where_it_was() -> None:
    generator = torch.Generator().manual_seed(3)
    torch.randn(5, generator=generator)
    file = io.BytesIO(contents(replace(a_checkpoint(), streams={"actions": generator.get_state()})))
    restored = torch.Generator().set_state(read_checkpoint(file).streams["actions"])
    assert torch.equal(torch.randn(9, generator=restored), torch.randn(9, generator=generator))


def test_numpy_numbers_in_an_optimizer_come_back_as_python_numbers() -> None:
    groups = [{"lr": np.float64(0.25), "betas": (np.float32(0.5), 0.75), "amsgrad": np.bool_(True)}]
    file = io.BytesIO(contents(replace(a_checkpoint(), optimizer={"param_groups": groups})))
    group = read_checkpoint(file).optimizer["param_groups"][0]
    assert group == {"lr": 0.25, "betas": (0.5, 0.75), "amsgrad": True}
    assert [type(group["lr"]), type(group["betas"][0]), type(group["amsgrad"])] == [float, float, bool]


@pytest.mark.parametrize(
    "data", [{"x": (1, 2)}, {"x": {1: "a"}}, {"x": float("nan")}, {"x": print}], ids=["tuple", "key", "nan", "object"]
)
def test_data_that_json_would_change_or_refuse_is_refused_by_name(data: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"data\['x'\].*encode_value"):
        write_checkpoint(tmp_path / "agent", replace(a_checkpoint(), data=data))
    assert list(tmp_path.iterdir()) == []


def test_what_could_not_be_read_back_is_not_written(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "agent", a_checkpoint())
    before = (tmp_path / "agent.zip").read_bytes()
    with pytest.raises(ValueError, match=r"policy\.optimizer\.pth"):
        write_checkpoint(tmp_path / "agent", replace(a_checkpoint(), optimizer={"state": {1, Path()}}))
    with pytest.raises(ValueError, match="more than the 8,388,608 allowed"):
        write_checkpoint(tmp_path / "agent", replace(a_checkpoint(), data={"x": "y" * 9_000_000}))
    assert [path.name for path in tmp_path.iterdir()] == ["agent.zip"]
    assert (tmp_path / "agent.zip").read_bytes() == before


def test_custom_objects_replace_entries_unread() -> None:
    double = lambda x: 2 * x  # noqa: E731
    data = {"learning_rate": {"__unsaved__": "<lambda>"}, "broken": {"__float__": "no number"}, "gamma": 0.5}
    file = io.BytesIO(contents(replace(a_checkpoint(), data=data)))
    read = read_checkpoint(file, custom_objects={"learning_rate": double, "broken": 3})
    assert read.data == {"learning_rate": double, "broken": 3, "gamma": 0.5}


def test_the_versions_of_the_writer_come_along() -> None:
    read = read_checkpoint(io.BytesIO(contents(a_checkpoint())))
    assert read.system_info == system_info()
    assert [line.partition(":")[0] for line in read.system_info.splitlines()] == [
        "system",
        "python",
        "torch",
        "numpy",
        "gymnasium",
        "grpo_gym",
    ]


def test_only_the_policy_moves_to_the_device() -> None:
    read = read_checkpoint(io.BytesIO(contents(a_checkpoint())), device="meta")
    assert read.policy["net.weight"].device.type == "meta"
    assert read.optimizer["state"][0]["exp_avg"].device.type == "cpu"
    assert read.streams["actions"].device.type == "cpu"


# --- paths and file objects -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "written"),
    [
        ("agent", "agent.zip"),
        ("agent.zip", "agent.zip"),
        ("agent.ZIP", "agent.ZIP"),
        ("model_v1.5", "model_v1.5.zip"),
        ("best.", "best..zip"),
        (".hidden", ".hidden.zip"),
        ("two words/größe_模型", "two words/größe_模型.zip"),
        ("a/b/c/agent", "a/b/c/agent.zip"),
        ("n" * 250, "n" * 250 + ".zip"),
    ],
)
def test_a_file_is_found_again_by_the_string_it_was_saved_under(given: str, written: str, tmp_path: Path) -> None:
    path = f"{tmp_path}/{given}"
    write_checkpoint(path, a_checkpoint())
    assert (tmp_path / written).is_file()
    assert_same(read_checkpoint(path), a_checkpoint())
    assert_same(read_checkpoint(Path(path)), a_checkpoint())


def test_two_versions_that_differ_after_the_dot_are_two_files(tmp_path: Path) -> None:
    for seed in (1, 2):
        write_checkpoint(tmp_path / f"model_v1.{seed}", a_checkpoint(seed))
    assert [read_checkpoint(tmp_path / f"model_v1.{seed}").data["seed"] for seed in (1, 2)] == [1, 2]


def test_a_renamed_file_is_read_under_its_new_name(tmp_path: Path) -> None:
    (tmp_path / "agent.bak").write_bytes(contents(a_checkpoint()))
    assert_same(read_checkpoint(tmp_path / "agent.bak"), a_checkpoint())


def test_a_missing_file_is_named_as_it_was_tried(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"model_v1\.5\.zip"):
        read_checkpoint(tmp_path / "model_v1.5")


@pytest.mark.parametrize("path", ["", ".", "..", "a/.."])
def test_a_path_without_a_file_name_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match="names no file"):
        write_checkpoint(path, a_checkpoint())


def test_a_link_stays_a_link_and_its_target_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "latest.zip").symlink_to(tmp_path / "runs" / "step_100.zip")
    write_checkpoint(tmp_path / "latest", a_checkpoint())
    assert (tmp_path / "latest.zip").is_symlink()
    assert_same(read_checkpoint(tmp_path / "runs" / "step_100"), a_checkpoint())


def test_permissions_follow_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_checkpoint(tmp_path / "agent", a_checkpoint())
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "agent.zip").stat().st_mode) == 0o640


class CountingFile(io.BytesIO):
    n_writes = 0

    def write(self, content: Any) -> int:
        self.n_writes += 1
        return super().write(content)


class Pipe(io.BytesIO):
    def seekable(self) -> bool:
        return False

    def seek(self, *_: Any) -> int:
        raise io.UnsupportedOperation("seek")


class ShortFile(io.BytesIO):
    def write(self, content: Any) -> int:
        return super().write(content[:10])


def test_a_file_object_gets_one_write_and_is_read_from_wherever_it_stands() -> None:
    file = CountingFile()
    write_checkpoint(file, a_checkpoint())
    assert file.n_writes == 1
    assert file.tell() == len(file.getvalue())
    assert_same(read_checkpoint(file), a_checkpoint())
    assert not file.closed


def test_a_pipe_can_be_read() -> None:
    assert_same(read_checkpoint(Pipe(contents(a_checkpoint()))), a_checkpoint())


def test_a_file_object_that_takes_a_part_is_an_error() -> None:
    with pytest.raises(OSError, match="took 10 of"):
        write_checkpoint(ShortFile(), a_checkpoint())


def test_a_text_file_is_refused_both_ways() -> None:
    with pytest.raises(TypeError, match="expected a binary one"):
        write_checkpoint(io.StringIO(), a_checkpoint())  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="expected a binary one"):
        read_checkpoint(io.StringIO())  # type: ignore[arg-type]


# --- saving that fails ----------------------------------------------------------------------------------------


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


def test_a_full_disk_leaves_the_old_file_whole_and_nothing_else(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "agent", a_checkpoint(1))
    old, size = (tmp_path / "agent.zip").read_bytes(), len(contents(a_checkpoint(2)))
    for limit in [0, 100, *range(1000, size - 200, size // 12), size - 200, size - 1]:
        with pytest.raises(OSError, match=r"not saved.*agent\.zip"), files_at_most(limit):
            write_checkpoint(tmp_path / "agent", a_checkpoint(2))
        assert [path.name for path in tmp_path.iterdir()] == ["agent.zip"]
        assert (tmp_path / "agent.zip").read_bytes() == old
    with files_at_most(size):
        write_checkpoint(tmp_path / "agent", a_checkpoint(2))
    assert_same(read_checkpoint(tmp_path / "agent"), a_checkpoint(2))


@pytest.mark.parametrize("failing", ["fsync", "replace"])
@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), KeyboardInterrupt()])
def test_an_error_late_in_saving_leaves_the_old_file_and_no_other(
    failing: str, error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise error

    write_checkpoint(tmp_path / "agent", a_checkpoint(1))
    monkeypatch.setattr(os, failing, fail)
    with pytest.raises(type(error)):
        write_checkpoint(tmp_path / "agent", a_checkpoint(2))
    monkeypatch.undo()
    assert [path.name for path in tmp_path.iterdir()] == ["agent.zip"]
    assert_same(read_checkpoint(tmp_path / "agent"), a_checkpoint(1))


def test_the_file_reaches_the_disk_before_its_name_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    def noted(name: str, function: Callable[..., None]) -> Callable[..., None]:
        def call(*arguments: Any) -> None:
            calls.append(name)
            function(*arguments)

        return call

    monkeypatch.setattr(os, "fsync", noted("fsync", os.fsync))
    monkeypatch.setattr(os, "replace", noted("replace", os.replace))
    write_checkpoint(tmp_path / "agent", a_checkpoint())
    assert calls == ["fsync", "replace"]


def test_threads_that_save_under_one_name_leave_one_whole_file(tmp_path: Path) -> None:
    checkpoints = [a_checkpoint(seed) for seed in range(4)]

    def save(checkpoint: Checkpoint) -> None:
        for _ in range(5):
            write_checkpoint(tmp_path / "agent", checkpoint)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(save, checkpoints))
    assert [path.name for path in tmp_path.iterdir()] == ["agent.zip"]
    assert (tmp_path / "agent.zip").read_bytes() in [contents(checkpoint) for checkpoint in checkpoints]


def test_a_folder_at_the_path_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "agent.zip").mkdir()
    with pytest.raises(IsADirectoryError, match=r"agent\.zip"):
        write_checkpoint(tmp_path / "agent", a_checkpoint())
    with pytest.raises(IsADirectoryError, match=r"agent\.zip"):
        read_checkpoint(tmp_path / "agent")
    assert [path.name for path in tmp_path.rglob("*")] == ["agent.zip"]


def test_an_unwritable_target_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    for path in (tmp_path / "file" / "agent", Path("/proc/grpo_gym/agent"), Path("/proc/agent")):
        with pytest.raises(OSError, match=f"not saved.*{path}.zip"):
            write_checkpoint(path, a_checkpoint())
    assert (tmp_path / "file").read_text() == "not a folder"


CHILD = """
import os, random, resource, signal, sys, time
from pathlib import Path
import torch
from grpo_gym.checkpoint import read_checkpoint, write_checkpoint

folder, old, new = Path(sys.argv[1]), read_checkpoint(sys.argv[2]), read_checkpoint(sys.argv[3])
whole = {Path(name).read_bytes() for name in sys.argv[2:4]}
target, size = folder / "agent.zip", max(map(len, whole))

def in_a_child(work):
    pid = os.fork()
    if pid == 0:
        try:
            work()
        finally:
            os._exit(0)
    return pid

def limited(limit):
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    write_checkpoint(target, new)

write_checkpoint(target, old)
before = target.read_bytes()
for limit in [0, 1, 100, *range(1000, size, size // 8), size - 1]:
    status = os.waitpid(in_a_child(lambda: limited(limit)), 0)[1]
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGXFSZ, (limit, status)
    assert target.read_bytes() == before, limit
    left = [path for path in folder.iterdir() if path != target]
    assert len(left) == 1, left
    left[0].unlink()
print("killed at byte n")

def forever(started):
    while True:
        write_checkpoint(target, new)
        write_checkpoint(target, old)
        os.write(started, b".")

for kill in range(1, 7):
    ours, theirs = os.pipe()
    pid = in_a_child(lambda: forever(theirs))
    os.read(ours, 1)
    time.sleep(random.uniform(0, 0.04))
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert target.read_bytes() in whole
    assert len(list(folder.iterdir())) <= 1 + kill
print("killed anywhere")

def peak():
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) * 1024

start = peak()
for bomb in sys.argv[4:]:
    try:
        read_checkpoint(bomb)
    except ValueError:
        assert peak() - start < 100 * 1024**2, (bomb, peak() - start)
    else:
        raise AssertionError(bomb)
print("bombs refused")
"""


def test_kills_leave_the_old_or_the_new_file_and_bombs_do_not_fill_the_memory(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("old.zip", "new.zip", "json.zip", "tensor.zip")]
    for seed in (0, 1):
        write_checkpoint(paths[seed], a_checkpoint(seed))
    members = members_of(a_checkpoint())
    data = members.pop("data")
    paths[2].write_bytes(with_600_mib_of_zeros(members, "data"))
    with zipfile.ZipFile(io.BytesIO(torch_bytes({"net.weight": torch.zeros(40 * 1024**2)}))) as archive:
        inner = zipped({name: archive.read(name) for name in archive.namelist()}, zipfile.ZIP_DEFLATED)
    paths[3].write_bytes(zipped(members | {"data": data, "policy.pth": inner.getvalue()}).getvalue())
    assert max(path.stat().st_size for path in paths) < 4 * 1024**2
    (tmp_path / "target").mkdir()
    child = subprocess.run(
        [sys.executable, "-c", CHILD, str(tmp_path / "target"), *map(str, paths)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert child.returncode == 0, child.stderr
    assert child.stdout.splitlines() == ["killed at byte n", "killed anywhere", "bombs refused"]


def with_600_mib_of_zeros(members: dict[str, bytes], name: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for other, content in members.items():
            archive.writestr(other, content)
        with archive.open(name, "w") as zeros:
            for _ in range(600):
                zeros.write(bytes(1024**2))
    return file.getvalue()


# --- damaged files --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.0, 0.0001, 0.1, 0.3, 0.5, 0.7, 0.9, 0.999])
def test_a_truncated_file_is_called_truncated(share: float, tmp_path: Path) -> None:
    content = contents(a_checkpoint())
    (tmp_path / "agent.zip").write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match=r"agent\.zip: .*truncated or corrupt.*use an earlier checkpoint"):
        read_checkpoint(tmp_path / "agent")


@pytest.mark.parametrize("content", [b"hello", b"PK\x03\x04", bytes(1000), b"PK\x05\x06" + bytes(18)])
def test_something_else_than_a_checkpoint_is_refused(content: bytes) -> None:
    with pytest.raises(ValueError, match="truncated or corrupt"):
        read_checkpoint(io.BytesIO(content))


def test_a_flipped_bit_is_an_error_or_changes_nothing() -> None:
    content, dice = contents(a_checkpoint()), random.Random(0)
    directory = zipfile.ZipFile(io.BytesIO(content)).start_dir
    anywhere = [dice.randrange(8 * len(content)) for _ in range(40)]
    in_the_directory = [dice.randrange(8 * directory, 8 * len(content)) for _ in range(200)]
    n_refused = 0
    for bit in anywhere + in_the_directory:
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        try:
            read = read_checkpoint(io.BytesIO(flipped))
        except ValueError:
            n_refused += 1
        else:
            assert_same(read, a_checkpoint())
    assert n_refused > 40


@pytest.mark.parametrize("member", REQUIRED)
def test_a_missing_member_is_named(member: str) -> None:
    members = members_of(a_checkpoint())
    del members[member]
    with pytest.raises(ValueError, match=f"truncated or corrupt.*no member {member}"):
        read_checkpoint(zipped(members))


def test_the_members_for_people_may_be_missing() -> None:
    members = {name: content for name, content in members_of(a_checkpoint()).items() if name in REQUIRED}
    read = read_checkpoint(zipped(members))
    assert_same(read, a_checkpoint())
    assert read.system_info == ""


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[]",
        b"{}",
        b'{"data": {}}',
        b'{"format": "1", "data": {}}',
        b'{"format": 0, "data": {}}',
        b'{"format": 1}',
        b'{"format": 1, "data": []}',
        b"[" * 1_000_000,
        b'{"format": ' + b"9" * 5000 + b"}",
    ],
    ids=lambda data: data[:12].decode(errors="replace"),
)
def test_data_that_is_no_json_of_ours_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="member data is not the JSON of an agent"):
        read_checkpoint(zipped(members_of(a_checkpoint()) | {"data": data}))


@pytest.mark.parametrize("member", TENSOR_MEMBERS)
@pytest.mark.parametrize("state", [[torch.ones(2)], torch.ones(2), "text"], ids=["list", "tensor", "text"])
def test_tensors_outside_of_a_dict_are_refused(member: str, state: Any) -> None:
    with pytest.raises(ValueError, match=f"member {member}.*expected a dict"):
        read_checkpoint(zipped(members_of(a_checkpoint()) | {member: torch_bytes(state)}))


@pytest.mark.parametrize("member", ["policy.pth", "streams.pth"])
@pytest.mark.parametrize("state", [{"w": 1.0}, {"w": [torch.ones(1)]}, {1: torch.ones(1)}])
def test_weights_that_are_no_tensors_are_refused(member: str, state: Any) -> None:
    with pytest.raises(ValueError, match=f"member {member}.*expected a tensor"):
        read_checkpoint(zipped(members_of(a_checkpoint()) | {member: torch_bytes(state)}))


def test_the_cause_of_a_refusal_is_kept() -> None:
    with pytest.raises(ValueError, match="no zip archive") as caught:
        read_checkpoint(io.BytesIO(b"hello"))
    assert isinstance(caught.value.__cause__, zipfile.BadZipFile)


# --- hostile files --------------------------------------------------------------------------------------------

MAKERS = [a_pickle, a_torch_file, a_legacy_torch_file, an_array_of_objects]


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("variable", ["0", "1"])
def test_a_pickle_in_any_member_is_never_run(
    make: Callable[[Any], bytes], variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", variable)
    sentinel = tmp_path / "sentinel"
    payload = make(Writes(sentinel))
    members = members_of(a_checkpoint())
    for member in REQUIRED:
        with pytest.raises(ValueError, match=f"member {member}"):
            read_checkpoint(zipped(members | {member: payload}))
        assert not sentinel.exists(), member
    for member in ("_grpo_gym_version", "system_info.txt", "pytorch_variables.pth", "extra.pkl"):
        assert_same(read_checkpoint(zipped(members | {member: payload})), a_checkpoint())
        assert not sentinel.exists(), member


def test_the_pickles_of_these_tests_do_run_where_they_are_trusted(tmp_path: Path) -> None:
    for number, make in enumerate(MAKERS):
        sentinel = tmp_path / str(number)
        file = io.BytesIO(make(Writes(sentinel)))
        if make is an_array_of_objects:
            np.load(file, allow_pickle=True)
        elif make is a_pickle:
            pickle.load(file)
        else:
            torch.load(file, weights_only=False)
        assert sentinel.read_text() == "code was run"


def test_a_pickle_inside_of_the_json_stays_text(tmp_path: Path) -> None:
    sentinel = tmp_path / "sentinel"
    value = {":type:": "<class 'function'>", ":serialized:": pickle.dumps(Writes(sentinel)).hex()}
    read = read_checkpoint(io.BytesIO(contents(replace(a_checkpoint(), data={"learning_rate": value}))))
    assert decode_value(read.data["learning_rate"]) == value
    assert not sentinel.exists()


def test_a_class_named_in_the_file_is_never_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sentinel = tmp_path / "sentinel"
    (tmp_path / "grpo_trojan.py").write_text(f"open({str(sentinel)!r}, 'w')\nclass Tanh: pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    policy_kwargs = {"activation_fn": {"__class__": "grpo_trojan.Tanh"}}
    read = read_checkpoint(io.BytesIO(contents(replace(a_checkpoint(), data={"policy_kwargs": policy_kwargs}))))
    decoded = decode_value(read.data["policy_kwargs"], "policy_kwargs")
    assert decoded == {"activation_fn": Unsaved("policy_kwargs", "the class 'grpo_trojan.Tanh'")}
    assert "grpo_trojan" not in sys.modules
    assert not sentinel.exists()


def test_members_named_after_other_places_are_left_in_the_archive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    escapes = {"../escaped.txt": b"x", f"{tmp_path}/absolute.txt": b"x", "../../policy.pth": b"x", "extra/": b""}
    Path("agent.zip").write_bytes(zipped(members_of(a_checkpoint()) | escapes).getvalue())
    assert_same(read_checkpoint("agent"), a_checkpoint())
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["agent.zip", "here"]


def test_a_repacked_file_is_read_but_only_by_methods_that_tell_their_size() -> None:
    members = members_of(a_checkpoint())
    assert_same(read_checkpoint(zipped(members, zipfile.ZIP_DEFLATED)), a_checkpoint())
    for method in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        with pytest.raises(ValueError, match="expected stored or deflated"):
            read_checkpoint(zipped(members, method))


def peak_of_reading(file: io.BytesIO, match: str) -> int:
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=match):
            read_checkpoint(file)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_bomb_is_refused_by_the_size_it_announces() -> None:
    bomb = zipped(members_of(a_checkpoint()) | {"data": bytes(32 * 1024**2)}, zipfile.ZIP_DEFLATED)
    assert peak_of_reading(bomb, "would unpack to 33,5.* more than the 8,388,608 allowed") < 2 * 1024**2


def test_a_bomb_that_lies_about_its_size_is_not_unpacked() -> None:
    size = 32 * 1024**2 + 4321  # a number that is nowhere else in the file
    content = zipped(members_of(a_checkpoint()) | {"data": bytes(size)}, zipfile.ZIP_DEFLATED).getvalue()
    honest, lie = size.to_bytes(4, "little"), (1000).to_bytes(4, "little")
    assert content.count(honest) == 2
    assert peak_of_reading(io.BytesIO(content.replace(honest, lie)), "member data is truncated") < 4 * 1024**2


def test_an_archive_of_tensors_larger_than_its_bytes_is_refused() -> None:
    inner = zipped({"archive/data.pkl": b"", "archive/data/0": bytes(1_000_000)}, zipfile.ZIP_DEFLATED).getvalue()
    with pytest.raises(ValueError, match="its parts are larger than itself"):
        read_checkpoint(zipped(members_of(a_checkpoint()) | {"policy.pth": inner}))


def test_more_than_max_bytes_are_refused() -> None:
    file = io.BytesIO(contents(a_checkpoint()))
    with pytest.raises(ValueError, match=r"more than the 20,000 allowed.*max_bytes"):
        read_checkpoint(file, max_bytes=20_000)
    assert_same(read_checkpoint(file, max_bytes=100_000), a_checkpoint())


# --- other versions and other libraries -----------------------------------------------------------------------


def test_a_newer_format_asks_for_an_upgrade_even_if_its_members_are_others() -> None:
    members = members_of(a_checkpoint())
    members |= {"data": b'{"format": 2, "arguments": {}}', "_grpo_gym_version": b"9.1"}
    for lacking in ("system_info.txt", "streams.pth"):
        del members[lacking]
        with pytest.raises(ValueError, match=r"version 9\.1 of grpo_gym in format 2.*formats up to 1: upgrade"):
            read_checkpoint(zipped(members))


def test_unknown_members_and_keys_of_the_same_format_are_ignored() -> None:
    members = members_of(a_checkpoint())
    content = json.loads(members["data"]) | {"since_0.9": True}
    members |= {"data": json.dumps(content).encode(), "normalizer.pth": b"whatever"}
    assert_same(read_checkpoint(zipped(members)), a_checkpoint())


def test_a_file_of_stable_baselines3_is_recognised() -> None:
    members = {
        "data": b'{"policy_class": {":type:": "<class \'abc.ABCMeta\'>", ":serialized:": "gAWV"}}',
        "pytorch_variables.pth": b"",
        "policy.pth": torch_bytes({}),
        "policy.optimizer.pth": torch_bytes({}),
        "_stable_baselines3_version": b"2.9.2",
    }
    with pytest.raises(ValueError, match="this is a stable-baselines3 file"):
        read_checkpoint(zipped(members))
