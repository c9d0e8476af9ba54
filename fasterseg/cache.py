"""Where files are kept between runs, and how they are written: atomically, under a lock."""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from collections.abc import Iterator
from pathlib import Path

from fasterseg.errors import OutputError


def cache_root() -> Path:
    """Folder of everything that can be rebuilt (engines).

    `$FASTERSEG_CACHE`, else `$XDG_CACHE_HOME/fasterseg`, else `~/.cache/fasterseg`.
    """
    return _root("FASTERSEG_CACHE", "XDG_CACHE_HOME", ".cache")


def data_root() -> Path:
    """Folder of what the user brought in and cannot be rebuilt (imported models).

    `$FASTERSEG_HOME`, else `$XDG_DATA_HOME/fasterseg`, else `~/.local/share/fasterseg`.
    """
    return _root("FASTERSEG_HOME", "XDG_DATA_HOME", ".local/share")


def _root(own: str, xdg: str, default: str) -> Path:
    if value := os.environ.get(own):
        return Path(value).expanduser()
    if value := os.environ.get(xdg):
        return Path(value).expanduser() / "fasterseg"
    return Path.home() / default / "fasterseg"


def make_folder(folder: Path) -> Path:
    """Create a folder with its parents.

    Raises:
        OutputError: it cannot be created.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"cannot create folder {folder}: {error.strerror or error}. Choose another place, "
            "or mend its permissions"
        ) from error
    return folder


def write_atomic(path: Path, data: bytes) -> None:
    """Write a file so that readers see the old content or the new, never a part.

    Raises:
        OutputError: the folder or file cannot be written, or the disk is full.
    """
    make_folder(path.parent)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def locked(path: Path, timeout_s: float = 600.0) -> Iterator[None]:
    """Hold an inter-process lock named after `path` (a `.lock` file beside it).

    The lock belongs to the open file, so a process that dies releases it.

    Raises:
        OutputError: the lock file cannot be created, or another process kept it for longer
            than `timeout_s` seconds.
    """
    import fcntl

    make_folder(path.parent)
    lock_path = path.with_name(path.name + ".lock")
    try:
        file = lock_path.open("w")
    except OSError as error:
        raise OutputError(f"cannot write {lock_path}: {error.strerror or error}") from error
    with file:
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise OutputError(
                        f"another process holds {lock_path} for over {timeout_s:.0f} s; "
                        "wait for it or stop it"
                    ) from None
                time.sleep(0.05)
        yield
