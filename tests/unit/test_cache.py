from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fasterseg.cache import cache_root, data_root, locked, make_folder, write_atomic
from fasterseg.errors import OutputError

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
