from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fasterseg.cache import (
    DEFAULT_LIMIT,
    byte_text,
    cache_root,
    data_root,
    entries,
    entry_path,
    locked,
    make_folder,
    parse_bytes,
    remove,
    size_limit,
    touch,
    trim,
    write_atomic,
)
from fasterseg.errors import OutputError, UsageError

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"FASTERSEG_CACHE": "/own", "XDG_CACHE_HOME": "/xdg"}, "/own"),
        ({"XDG_CACHE_HOME": "/xdg"}, "/xdg/fasterseg"),
        ({}, "/home/someone/.cache/fasterseg"),
    ],
)
def test_cache_root_follows_the_environment(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], expected: str
) -> None:
    for name in ("FASTERSEG_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"HOME": "/home/someone", **environment}.items():
        monkeypatch.setenv(name, value)
    assert cache_root() == Path(expected)


def test_data_root_is_not_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FASTERSEG_HOME", "FASTERSEG_CACHE", "XDG_DATA_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/home/someone")
    assert data_root() == Path("/home/someone/.local/share/fasterseg")
    monkeypatch.setenv("FASTERSEG_HOME", "/own")
    assert data_root() == Path("/own")


def test_write_replaces_the_file_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file.bin"
    write_atomic(path, b"old")
    write_atomic(path, b"new")
    assert path.read_bytes() == b"new"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_failing_write_leaves_the_old_file_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    path = tmp_path / "file.bin"
    write_atomic(path, b"old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os if step == "fsync" else Path, step, full)
    with pytest.raises(OutputError, match=r"file\.bin: No space left on device"):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_folder_where_a_file_stands_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError, match=r"cannot create folder .*file/folder"):
        make_folder(tmp_path / "file" / "folder")


HOLDER = """
import sys
from pathlib import Path
from fasterseg.cache import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def holder(path: Path) -> subprocess.Popen[str]:
    """Another process that holds the lock until its standard input closes."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_lock_excludes_another_process_until_it_lets_go(tmp_path: Path) -> None:
    path = tmp_path / "engine.onnx"
    with holder(path) as process:
        with pytest.raises(OutputError, match="another process holds"), locked(path, timeout_s=0.1):
            pytest.fail("the lock was taken twice")
        process.communicate("")
    with locked(path, timeout_s=0.0):
        pass


def test_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    path = tmp_path / "engine.onnx"
    with holder(path) as process:
        process.kill()
        process.wait()
    with locked(path, timeout_s=0.0):
        pass


DAY_S = 86400


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FASTERSEG_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def entry(name: str, size: int = 10, days: float = 0.0) -> Path:
    """An entry that was used so many days ago."""
    path = entry_path("onnx", name, f"{len(name):016x}", ".onnx")
    write_atomic(path, bytes(size))
    then = path.stat().st_mtime - days * DAY_S
    os.utime(path, (then, then))
    return path


def test_entries_come_unused_for_longest_first(cache: Path) -> None:
    paths = [entry("a", days=1), entry("bb", days=3), entry("ccc", size=7, days=2)]
    found = entries()
    assert [e.path for e in found] == [paths[1], paths[2], paths[0]]
    assert found[1].size == 7
    touch(paths[1])
    touched = entries()[-1]
    assert touched.path == paths[1]
    assert touched.used - touched.built == pytest.approx(3 * DAY_S, abs=60)


def test_no_cache_has_no_entries(cache: Path) -> None:
    assert entries() == []
    assert trim(0) == []
    touch(cache / "nothing")


@pytest.mark.parametrize(
    "name", ["../../../etc/x", "a/b", "\0", "x" * 300, "\udcff", "..", "é" * 90]
)
def test_whatever_the_name_an_entry_lies_in_its_folder(cache: Path, name: str) -> None:
    path = entry(name)
    assert path.parent == cache / "engines" / "onnx"
    assert [e.path for e in entries()] == [path]


def test_trimming_removes_what_was_unused_for_longest(cache: Path) -> None:
    paths = [entry("a", days=3), entry("bb", days=2), entry("ccc", days=1)]
    assert [e.path for e in trim(20)] == paths[:1]
    assert [e.path for e in trim(None)] == []
    assert [e.path for e in trim(0, keep=paths[1])] == paths[2:]
    assert [e.path for e in entries()] == [paths[1]]


def test_only_files_of_ours_are_ever_removed(cache: Path) -> None:
    mine = entry("a")
    others = [
        cache / "engines" / "recipe.toml",
        cache / "engines" / "onnx" / "model.onnx",
        cache / "engines" / "onnx" / "notes.lock",
        cache / f"x_{1:016x}.onnx",
    ]
    for other in others:
        other.write_bytes(b"precious")
        os.utime(other, (0, 0))
    assert [e.path for e in remove(entries())] == [mine]
    assert all(other.exists() for other in others)


def test_what_killed_processes_left_goes_once_it_is_old(cache: Path) -> None:
    path = entry("a")
    leftovers = [
        path.with_name(path.name + ".lock"),
        path.with_name(f".{path.name}.0a1b2c3d.tmp"),
    ]
    for leftover in leftovers:
        leftover.write_bytes(b"")
    remove([])
    assert all(leftover.exists() for leftover in leftovers)
    for leftover in leftovers:
        os.utime(leftover, (0, 0))
    remove([])
    assert not any(leftover.exists() for leftover in leftovers)
    assert path.exists()


def test_an_entry_that_cannot_be_removed_is_an_error(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry("a")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(OutputError, match="Permission denied"):
        trim(0)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("17", 17),
        ("500M", 500 << 20),
        ("4g", 4 << 30),
        ("1.5 GiB", 3 << 29),
        ("2KB", 2048),
    ],
)
def test_sizes_are_read_as_people_write_them(text: str, size: int) -> None:
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["", "four", "-1", "4X", "4GG", "1e9"])
def test_text_that_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="500M"):
        parse_bytes(text)


def test_the_limit_is_the_variables_or_4_gib(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FASTERSEG_CACHE_LIMIT", raising=False)
    assert size_limit() == DEFAULT_LIMIT == 4 << 30
    monkeypatch.setenv("FASTERSEG_CACHE_LIMIT", "1M")
    assert size_limit() == 1 << 20
    monkeypatch.setenv("FASTERSEG_CACHE_LIMIT", "none")
    assert size_limit() is None
    monkeypatch.setenv("FASTERSEG_CACHE_LIMIT", "lots")
    with pytest.raises(UsageError, match="FASTERSEG_CACHE_LIMIT: 'lots'"):
        size_limit()


def test_bytes_are_shown_for_people() -> None:
    assert [byte_text(n) for n in (0, 1023, 1536, 13_689_637, 5 << 30)] == [
        "0 B",
        "1023 B",
        "1.5 KB",
        "13.1 MB",
        "5.0 GB",
    ]
