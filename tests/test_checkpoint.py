"""Checkpoints survive crashes at every call, power cuts, full disks and flipped bits."""

from __future__ import annotations

import ast
import contextlib
import errno
import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from disks import CHANGES, Died, MemoryDisk, WatchedDisk, dies_at, fails_from, in_child
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import distbp
from distbp.core import sealed
from distbp.core.errors import CheckpointError, StorageError
from distbp.core.storage import Disk
from distbp.run import checkpoint

ROOT = Path("/checkpoints")
REPOSITORY = Path(__file__).resolve().parents[1]
ENVIRONMENT = {**os.environ, "PYTHONPATH": f"{REPOSITORY / 'tests'}{os.pathsep}{REPOSITORY}"}


def content(step: int, mark: int = 0) -> tuple[dict[str, np.ndarray], dict[str, object]]:
    """Arrays and state that tell which save they came from."""
    arrays = {
        "parameters": np.arange(20, dtype=np.float32) + 100 * step + mark,
        "moment": np.zeros(0),
        "step": np.array(step),
    }
    return arrays, {"step": step, "mark": mark, "best": [0.1, None], "who": "é"}


def save(folder: Path, step: int, mark: int = 0, disk: Disk | None = None) -> Path:
    return checkpoint.save(folder, step, *content(step, mark), disk=disk or Disk())


def found(folder: Path, disk: Disk | None = None) -> tuple[int, int] | None:
    """(step, mark) of the newest checkpoint, after checking that it is whole."""
    loaded = checkpoint.load_latest(folder, disk=disk or Disk())
    if loaded is None:
        return None
    mark = loaded.state["mark"]
    arrays, state = content(loaded.step, mark)
    assert loaded.state == state
    assert loaded.set_aside == ()
    assert loaded.arrays.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(loaded.arrays[name], array)
        assert loaded.arrays[name].dtype == array.dtype
    return loaded.step, mark


def tree(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def whole(*steps: int) -> list[str]:
    names = [f"step-{step:08d}" for step in steps]
    return sorted(p for n in names for p in (n, f"{n}/manifest.json", f"{n}/state.safetensors"))


# ---------------------------------------------------------------- round trips


def test_a_saved_checkpoint_comes_back(tmp_path: Path) -> None:
    folder = tmp_path / "run" / "checkpoints"
    assert save(folder, 5) == folder / "step-00000005"
    assert found(folder) == (5, 0)
    assert tree(folder) == whole(5)


def test_nothing_there_is_none(tmp_path: Path) -> None:
    assert checkpoint.load_latest(tmp_path / "absent") is None
    assert checkpoint.list_steps(tmp_path / "absent") == []


DTYPES = ["bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"]
DTYPES += ["float16", "float32", "float64", ">f4", ">f8", ">i4"]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(
    arrays=st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"])).filter(lambda n: n != "__metadata__"),
        st.sampled_from(DTYPES).flatmap(
            lambda d: hnp.arrays(np.dtype(d), hnp.array_shapes(min_dims=0, min_side=0, max_side=4))
        ),
        max_size=4,
    ),
    state=st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), JSON, max_size=4),
    step=st.integers(0, 10**12),
)
@settings(max_examples=60, deadline=None)
def test_round_trip_of_anything(arrays: dict[str, np.ndarray], state: dict[str, object], step: int) -> None:
    disk = MemoryDisk()
    checkpoint.save(ROOT, step, arrays, state, disk=disk)
    loaded = checkpoint.load_latest(ROOT, disk=disk)
    assert loaded is not None
    assert (loaded.step, loaded.state) == (step, state)
    assert loaded.arrays.keys() == arrays.keys()
    for name, array in arrays.items():
        got = loaded.arrays[name]
        assert got.shape == array.shape
        assert got.dtype == array.dtype.newbyteorder("<")
        assert got.tobytes() == array.astype(got.dtype).tobytes()


def test_the_file_is_what_the_safetensors_library_would_write() -> None:
    arrays = {f"t{i}": np.ones((2, i), dtype) for i, dtype in enumerate(sealed._DTYPES)}
    arrays |= {"é": np.arange(4).reshape(2, 2), "again": np.zeros(3)}
    assert b"".join(sealed.encode_arrays(arrays)) == safetensors.numpy.save(arrays)


def test_weights_are_little_endian_and_strides_do_not_matter(tmp_path: Path) -> None:
    arrays = {"w": np.arange(6, dtype=">f4").reshape(2, 3).T}
    path = checkpoint.save(tmp_path, 1, arrays, {})
    raw = (path / checkpoint.STATE).read_bytes()
    assert raw.endswith(np.arange(6, dtype="<f4").reshape(2, 3).T.tobytes())


@pytest.mark.parametrize(
    "array", [np.array([None]), np.array(["x"]), np.zeros(2, "f4,f4"), np.zeros(2, complex)], ids=repr
)
def test_arrays_that_the_format_lacks_are_refused(tmp_path: Path, array: np.ndarray) -> None:
    with pytest.raises(TypeError, match=r"array 'w' of dtype .* cannot be stored"):
        checkpoint.save(tmp_path, 1, {"w": array}, {})
    assert tree(tmp_path) == []


def test_list_load_and_prune(tmp_path: Path) -> None:
    for step in (30, 1, 20, 10):
        save(tmp_path, step)
    assert checkpoint.list_steps(tmp_path) == [1, 10, 20, 30]
    assert checkpoint.load(tmp_path, 10).state["step"] == 10
    assert checkpoint.prune(tmp_path, keep_last=3) == [1]
    assert tree(tmp_path) == whole(10, 20, 30)
    assert checkpoint.prune(tmp_path, keep_last=3) == []
    with pytest.raises(CheckpointError, match=r"holds no checkpoint of step 1; it holds: 10, 20, 30"):
        checkpoint.load(tmp_path, 1)
    with pytest.raises(ValueError, match="keep_last is 0, but at least one checkpoint must stay"):
        checkpoint.prune(tmp_path, keep_last=0)


def test_the_same_step_twice_replaces_it(tmp_path: Path) -> None:
    save(tmp_path, 3)
    save(tmp_path, 3, mark=1)
    assert found(tmp_path) == (3, 1)
    assert tree(tmp_path) == whole(3)


def test_a_negative_step_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="step is -1, but steps count from 0"):
        save(tmp_path, -1)


# ---------------------------------------------------------------- crashes


def save_first(folder: Path, disk: Disk) -> None:
    save(folder, 7, disk=disk)


def save_over_older_and_prune(folder: Path, disk: Disk) -> None:
    save(folder, 7, disk=disk)
    checkpoint.prune(folder, keep_last=2, disk=disk)


def save_same_step(folder: Path, disk: Disk) -> None:
    save(folder, 6, mark=1, disk=disk)


# action, steps there before, what may be found, what is found at the end
SCENARIOS = {
    "first": (save_first, (), {None, (7, 0)}, (7, 0)),
    "over older, prune": (save_over_older_and_prune, (2, 4, 6), {(6, 0), (7, 0)}, (7, 0)),
    "same step": (save_same_step, (6,), {(6, 0), (6, 1)}, (6, 1)),
    "same step, older": (save_same_step, (4, 6), {(6, 0), (6, 1)}, (6, 1)),
}
scenarios = pytest.mark.parametrize(
    ("action", "before", "allowed", "after"), SCENARIOS.values(), ids=SCENARIOS.keys()
)
Action = Callable[[Path, Disk], None]


def calls_of(action: Action, folder: Path, inner: Disk | None = None) -> list[tuple[str, tuple[object, ...]]]:
    calls: list[tuple[str, tuple[object, ...]]] = []
    action(folder, WatchedDisk(lambda number, name, arguments: calls.append((name, arguments)), inner))
    return calls


@scenarios
def test_killed_at_every_call(
    tmp_path: Path, action: Action, before: tuple[int, ...], allowed: set[object], after: object
) -> None:
    start = tmp_path / "start" / "checkpoints"
    for step in before:
        save(start, step)
    (tmp_path / "start").mkdir(exist_ok=True)
    shutil.copytree(tmp_path / "start", tmp_path / "rehearsal")
    total = len(calls_of(action, tmp_path / "rehearsal" / "checkpoints"))
    assert total > 20
    seen = set()
    for n in range(1, total + 2):
        run = tmp_path / f"run-{n}"
        shutil.copytree(tmp_path / "start", run)
        folder = run / "checkpoints"
        status = in_child(lambda n=n, f=folder: action(f, dies_at(n, die=lambda: os._exit(7))))
        assert status == (7 if n <= total else 0)
        state = found(folder)
        assert state in allowed, f"killed at call {n}"
        seen.add(state)
        action(folder, Disk())  # a successor does it again, and clears away what was left
        assert found(folder) == after
        assert all("/." not in f"/{path}" for path in tree(folder))
    assert seen == allowed


@scenarios
@pytest.mark.parametrize("seed", [None, *range(4)])
def test_power_cut_at_every_call(
    seed: int | None, action: Action, before: tuple[int, ...], allowed: set[object], after: object
) -> None:
    """Everything not fsynced is lost (seed None), or any part of it survives, or stands as garbage."""

    def prepared() -> MemoryDisk:
        disk = MemoryDisk()
        for step in before:
            save(ROOT, step, disk=disk)
        return disk

    total = len(calls_of(action, ROOT, prepared()))
    for n in range(1, total + 2):
        disk = prepared()
        try:
            action(ROOT, dies_at(n, disk))
        except Died:
            assert n <= total
        left = disk.after_power_cut(random.Random(seed * 1000 + n) if seed is not None else None)
        assert found(ROOT, left) in ({after} if n > total else allowed), f"cut at call {n}"
        # A second cut, right after the successor has cleared up and before it has fsynced anything else.
        for m in range(1, 60, 11):
            again = left.after_power_cut()
            try:
                action(ROOT, dies_at(m, again))
            except Died:
                assert found(ROOT, again.after_power_cut()) in allowed, f"cut at {n}, then at {m}"
        action(ROOT, left)
        assert found(ROOT, left.after_power_cut()) == after


@pytest.mark.heavy
@scenarios
def test_killed_then_power_cut(
    action: Action, before: tuple[int, ...], allowed: set[object], after: object
) -> None:
    """A process is killed; what it had not fsynced is still visible to its successor, then the power goes."""
    for n in range(1, 90, 3):
        for m in range(1, 90, 8):
            disk = MemoryDisk()
            for step in before:
                save(ROOT, step, disk=disk)
            for k in (n, m):
                with contextlib.suppress(Died):
                    action(ROOT, dies_at(k, disk))
            assert found(ROOT, disk.after_power_cut()) in allowed, f"killed at {n}, cut at {m}"


def test_a_save_without_fsync_would_be_caught() -> None:
    """The power-cut test has teeth: without fsync it finds neither the old nor the new."""

    class Careless(MemoryDisk):
        def fsync(self, fd: int) -> None:
            pass

    disk = Careless()
    save(ROOT, 1, disk=disk)
    assert found(ROOT, disk) == (1, 0)
    assert checkpoint.list_steps(ROOT, disk=disk.after_power_cut()) == []


def test_the_counted_calls_are_all_calls(tmp_path: Path) -> None:
    """Python's audit hook sees every opening, renaming, removing and listing; the disk saw the same ones."""
    script = f"""
        import os, sys
        from pathlib import Path
        import test_checkpoint as t
        folder = Path({str(tmp_path / "checkpoints")!r})
        for step in (2, 4, 6):
            t.save(folder, step)
        seen, on = [], False
        kinds = {{"open": "open", "os.mkdir": "mkdir", "os.rename": "rename", "os.remove": "unlink",
                 "os.rmdir": "rmdir", "os.listdir": "listdir"}}
        def hook(event, arguments):
            if on and (event == "open" or event.startswith(("os.", "shutil.", "tempfile.", "subprocess"))):
                seen.append(kinds.get(event, event))
        sys.addaudithook(hook)
        on = True
        calls = t.calls_of(t.save_over_older_and_prune, folder) + t.calls_of(
            lambda f, d: t.save(f, 7, mark=1, disk=d), folder)
        on = False
        counted = [name for name, _ in calls if name in kinds.values()]
        assert counted == seen, (counted, seen)
        assert len(seen) > 40
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=True, env=ENVIRONMENT)


@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
def test_the_system_sees_no_other_calls(tmp_path: Path) -> None:
    kinds = {"mkdir", "mkdirat", "rename", "renameat", "renameat2", "unlink", "unlinkat", "rmdir"}
    kinds |= {"write", "pwrite64", "writev", "fsync", "fdatasync", "ftruncate", "truncate", "link", "symlink"}
    folder, log = tmp_path / "checkpoints", tmp_path / "log"
    script = f"""
        import os
        from pathlib import Path
        import test_checkpoint as t
        folder = Path({str(folder)!r})
        for step in (2, 4, 6):
            t.save(folder, step)
        os.write(2, b"BEGIN")
        calls = t.calls_of(t.save_over_older_and_prune, folder)
        os.write(2, b"END")
        print([name for name, _ in calls if name in t.CHANGES])
    """
    command = ["strace", "-f", "-o", str(log), "-e", f"trace={','.join(f'?{k}' for k in sorted(kinds))}"]
    command += [sys.executable, "-c", textwrap.dedent(script)]
    run = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT)
    if run.returncode:
        pytest.skip(f"strace is not allowed here: {run.stderr[:200]}")
    lines = log.read_text().splitlines()
    begin = next(i for i, line in enumerate(lines) if "BEGIN" in line)
    end = next(i for i, line in enumerate(lines) if '"END"' in line)
    system = [line.split("(")[0].split()[-1] for line in lines[begin + 1 : end]]
    families = {"renameat": "rename", "renameat2": "rename", "mkdirat": "mkdir"}
    ours = ast.literal_eval(run.stdout)
    assert [families.get(name, name) for name in system] == ours


def test_only_the_disk_touches_the_disk() -> None:
    """No other line of these files calls the system's file functions."""
    package = Path(distbp.__file__).parent
    for name in ("core/storage.py", "run/checkpoint.py"):
        module = ast.parse((package / name).read_text())
        body = [n for n in module.body if not (isinstance(n, ast.ClassDef) and n.name == "Disk")]
        calls = [n.func for part in body for n in ast.walk(part) if isinstance(n, ast.Call)]
        touching = {"stat", "exists", "is_dir", "is_file", "iterdir", "glob", "read_bytes", "write_bytes"}
        for call in calls:
            if isinstance(call, ast.Name):
                assert call.id != "open"
            elif isinstance(call, ast.Attribute):
                owner = call.value.id if isinstance(call.value, ast.Name) else ""
                assert (owner, call.attr) == ("os", "strerror") or owner not in ("os", "shutil"), call.lineno
                assert call.attr not in touching, call.lineno


# ---------------------------------------------------------------- disks that refuse

REFUSALS = {
    errno.ENOSPC: r"^disk full: could not write .*step-00000007\. What was stored before is intact; free some"
    r" space on that disk, then go on\.$",
    errno.EDQUOT: "^disk quota used up: ",
    errno.EROFS: "^read-only disk: .* choose a folder on a disk that can be written, then go on",
    errno.EACCES: "^permission denied: .* choose a folder that this user may write",
    errno.EIO: "^the disk reports an input/output error: ",
}


@pytest.mark.parametrize("code", REFUSALS, ids=lambda code: errno.errorcode[code])
@pytest.mark.parametrize("once", [False, True])
@pytest.mark.parametrize("names", [("write", "mkdir"), ("write", "fsync")], ids="+".join)
def test_refused_at_every_call(tmp_path: Path, code: int, once: bool, names: tuple[str, ...]) -> None:
    save(tmp_path, 4)
    save(tmp_path, 6)
    total = sum(name in names for name, _ in calls_of(lambda f, d: save(f, 6, disk=d), tmp_path))
    for n in range(1, total):
        for step in (7, 6):
            try:
                save(tmp_path, step, mark=1, disk=fails_from(n, code, names, once=once))
            except StorageError as error:
                assert step == 6 or re.search(REFUSALS[code], str(error))
            else:  # only the clearing away of what was replaced may fail without a word
                save(tmp_path, step)
            if step == 6 and found(tmp_path) == (6, 1):
                save(tmp_path, 6)
            if 7 in checkpoint.list_steps(tmp_path):
                shutil.rmtree(tmp_path / "step-00000007")
            assert found(tmp_path) == (6, 0)
            if names == ("write", "mkdir"):
                assert tree(tmp_path) == whole(4, 6)
    save(tmp_path, 8)
    assert tree(tmp_path) == whole(4, 6, 8)


def test_a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(StorageError, match=r"a part of the path is a file, not a folder: .* choose"):
        save(tmp_path / "file" / "checkpoints", 1)


def test_a_folder_that_may_not_be_written(tmp_path: Path) -> None:
    save(tmp_path, 1)
    tmp_path.chmod(0o500)

    def child() -> None:
        if os.geteuid() == 0:  # who may write everywhere
            os.setuid(65534)
        with pytest.raises(StorageError, match="permission denied: could not write"):
            save(tmp_path, 2)

    assert in_child(child) == 0
    tmp_path.chmod(0o700)
    assert tree(tmp_path) == whole(1)


def test_a_really_full_disk(tmp_path: Path) -> None:
    """A file-size limit of the kernel stands in for a small disk: the write itself falls short."""
    save(tmp_path, 1)
    arrays = {"w": np.ones(100_000)}

    def child() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
        with pytest.raises(StorageError, match="File too large: could not write"):
            checkpoint.save(tmp_path, 2, arrays, {})

    assert in_child(child) == 0
    assert tree(tmp_path) == whole(1)
    assert found(tmp_path) == (1, 0)


# ---------------------------------------------------------------- damage


@pytest.mark.parametrize("file", [checkpoint.STATE, checkpoint.MANIFEST])
def test_every_flipped_bit_is_found(tmp_path: Path, file: str) -> None:
    path = save(tmp_path, 2)
    good = (path / file).read_bytes()
    draw = random.Random(7)
    for place in range(len(good)):
        bad = bytearray(good)
        bad[place] ^= 1 << draw.randrange(8)
        (path / file).write_bytes(bad)
        with pytest.raises(CheckpointError, match=rf"step-00000002 is damaged: {file}"):
            checkpoint.load(tmp_path, 2)
    (path / file).write_bytes(good)
    assert found(tmp_path) == (2, 0)


def _truncate(path: Path) -> None:
    (path / checkpoint.STATE).write_bytes((path / checkpoint.STATE).read_bytes()[:-1])


def _change(path: Path) -> None:
    data = (path / checkpoint.STATE).read_bytes()
    (path / checkpoint.STATE).write_bytes(data[:-1] + bytes([data[-1] ^ 1]))


def _move(path: Path) -> None:
    shutil.rmtree(path)
    shutil.copytree(path.parent / "step-00000001", path)


DAMAGES = {
    r"state.safetensors has \d+ bytes; manifest.json says \d+": _truncate,
    "state.safetensors does not have the SHA-256 that manifest.json says": _change,
    r"state.safetensors cannot be read \(No such file or directory\)": lambda p: (
        p / checkpoint.STATE
    ).unlink(),
    "manifest.json is not JSON": lambda p: (p / checkpoint.MANIFEST).write_bytes(b"\x00" * 40),
    "manifest.json was changed after it was written": lambda p: (p / checkpoint.MANIFEST).write_bytes(b"{}"),
    "manifest.json does not match its own digest": lambda p: (p / checkpoint.MANIFEST).write_bytes(
        sealed.canonical_json({"digest": "0" * 64})
    ),
    "manifest.json belongs to step 1, not 2": _move,
    # What would be read without end, wait for ever, or is not what was written here.
    r"state.safetensors cannot be read \(Too many levels of symbolic links\)": lambda p: _in_place_of(
        p / checkpoint.STATE, lambda file: file.symlink_to("/dev/zero")
    ),
    r"manifest.json cannot be read \(it is a folder, a pipe or a device, not a regular file\)": (
        lambda p: _in_place_of(p / checkpoint.MANIFEST, os.mkfifo)
    ),
    r"state.safetensors cannot be read \(it is a folder, .*\)": lambda p: _in_place_of(
        p / checkpoint.STATE, Path.mkdir
    ),
    r"state.safetensors cannot be read \(it has [\d,]{13,} bytes, where at most \d+ are read\)": (
        lambda p: os.truncate(p / checkpoint.STATE, 1 << 40)
    ),
    r"manifest.json cannot be read \(it has [\d,]{13,} bytes, where at most [\d,]+ are read\)": (
        lambda p: os.truncate(p / checkpoint.MANIFEST, 1 << 40)
    ),
}


def _in_place_of(path: Path, make: Callable[[Path], Any]) -> None:
    path.unlink()
    make(path)


@pytest.mark.parametrize(("reason", "damage"), DAMAGES.items(), ids=DAMAGES.keys())
def test_a_damaged_one_is_set_aside_and_the_one_before_used(
    tmp_path: Path, reason: str, damage: Callable[[Path], None]
) -> None:
    for step in (1, 2):
        save(tmp_path, step)
    damage(tmp_path / "step-00000002")
    loaded = checkpoint.load_latest(tmp_path)
    assert loaded is not None
    assert loaded.step == 1
    (aside,) = loaded.set_aside
    assert (aside.step, aside.path) == (2, tmp_path / "damaged-step-00000002")
    assert re.fullmatch(reason, aside.reason), aside.reason
    assert aside.path.is_dir()
    assert found(tmp_path) == (1, 0)  # the next look does not stumble over it
    save(tmp_path, 2)
    damage(tmp_path / "step-00000002")
    again = checkpoint.load_latest(tmp_path)
    assert again is not None
    assert again.set_aside[0].path == tmp_path / "damaged-step-00000002-2"


def test_all_damaged_says_so(tmp_path: Path) -> None:
    _truncate(save(tmp_path, 1))
    _change(save(tmp_path, 2))
    with pytest.raises(CheckpointError, match=r"every checkpoint in .* is damaged; train again") as e:
        checkpoint.load_latest(tmp_path)
    assert "damaged-step-00000001" in str(e.value)
    assert "damaged-step-00000002" in str(e.value)


def test_a_later_format_is_named_and_left_alone(tmp_path: Path) -> None:
    path = save(tmp_path, 1)
    manifest = json.loads((path / checkpoint.MANIFEST).read_text())
    del manifest["digest"]
    (path / checkpoint.MANIFEST).write_bytes(sealed.sealed_json({**manifest, "version": 9}))
    with pytest.raises(CheckpointError, match="version 9; this distbp reads 'distbp checkpoint' version 2"):
        checkpoint.load_latest(tmp_path)
    assert checkpoint.list_steps(tmp_path) == [1]


def test_a_link_to_a_checkpoint_is_none(tmp_path: Path) -> None:
    save(tmp_path, 1)
    other = save(tmp_path / "other", 2)
    (tmp_path / other.name).symlink_to(other)
    loaded = checkpoint.load_latest(tmp_path)
    assert loaded is not None and loaded.step == 1
    assert loaded.set_aside[0].reason == "it is a link, not a folder of its own"


def test_a_folder_without_manifest_is_no_checkpoint(tmp_path: Path) -> None:
    save(tmp_path, 1)
    (save(tmp_path, 2) / checkpoint.MANIFEST).unlink()
    (tmp_path / "step-00000003").write_text("a file")
    assert checkpoint.list_steps(tmp_path) == [1]
    assert found(tmp_path) == (1, 0)


def test_unreadable_is_not_damage(tmp_path: Path) -> None:
    save(tmp_path, 1)
    with pytest.raises(StorageError, match="permission denied"):
        checkpoint.load_latest(tmp_path, disk=fails_from(1, errno.EACCES, ("read",)))
    assert checkpoint.list_steps(tmp_path) == [1]


def test_where_nothing_can_be_renamed_a_damaged_one_is_passed_over(tmp_path: Path) -> None:
    save(tmp_path, 1)
    _truncate(save(tmp_path, 2))
    loaded = checkpoint.load_latest(tmp_path, disk=fails_from(1, errno.EROFS, CHANGES))
    assert loaded is not None
    assert (loaded.step, loaded.set_aside[0].path) == (1, tmp_path / "step-00000002")
