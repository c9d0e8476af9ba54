"""Where files are kept between runs: written atomically, under a lock, the oldest removed first."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fasterseg.errors import OutputError, UsageError

LIMIT_VARIABLE: Final = "FASTERSEG_CACHE_LIMIT"
DEFAULT_LIMIT: Final = 4 << 30
"""Bytes the cache may hold; what was unused for longest is removed beyond that."""

_UNITS: Final = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
# The variable may point at a folder that holds other things: only names of this form are ours.
_ENTRY: Final = re.compile(r".*_[0-9a-f]{16}\.\w+")
_LEFTOVER: Final = re.compile(r"(.*_[0-9a-f]{16}\.\w+\.lock)|(\..*_[0-9a-f]{16}\.\w+\.\w+\.tmp)")
_LEFTOVER_AGE_S: Final = 3600.0
_COMPANIONS: Final = (".json", ".layers.json", ".parity.json")
"""Endings of files that belong to an entry and go with it."""

_LONGEST_NAME: Final = 64


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


@dataclass(frozen=True, slots=True)
class CacheEntry:
    """A file of the cache.

    Attributes:
        path: the file.
        size: its bytes.
        built: when it was written, in seconds since 1970.
        used: when it was last used, in seconds since 1970.
    """

    path: Path
    size: int
    built: float
    used: float

    @property
    def kind(self) -> str:
        """What it was kept as; see `entry_path`."""
        return self.path.parent.name


def entry_path(kind: str, name: str, key: str, suffix: str) -> Path:
    """Where an entry is kept.

    Args:
        kind: folder under `engines`.
        name: for people who look; whatever no file name can hold is replaced.
        key: 16 hex digits, a hash of everything the content depends on.
        suffix: with its dot.
    """
    plain = re.sub(r"[^A-Za-z0-9._-]", "_", name).lstrip(".")[:_LONGEST_NAME]
    return cache_root() / "engines" / kind / f"{plain}_{key}{suffix}"


def entries() -> list[CacheEntry]:
    """Everything in the cache, unused for longest first."""
    found = []
    for path in _files(_ENTRY):
        # Another process may be clearing.
        with contextlib.suppress(OSError):
            facts = path.stat()
            used = max(facts.st_atime, facts.st_mtime)
            found.append(CacheEntry(path, facts.st_size, facts.st_mtime, used))
    return sorted(found, key=lambda entry: (entry.used, entry.path))


def touch(path: Path) -> None:
    """Note that an entry is used now; a cache that cannot be written keeps no such notes."""
    # Explicitly, because most systems write access times once a day or never.
    with contextlib.suppress(OSError):
        os.utime(path, ns=(time.time_ns(), path.stat().st_mtime_ns))


def size_limit() -> int | None:
    """Bytes the cache may hold: `$FASTERSEG_CACHE_LIMIT`, else 4 GiB; None without a limit.

    Raises:
        UsageError: the variable holds no size.
    """
    text = os.environ.get(LIMIT_VARIABLE)
    if not text:
        return DEFAULT_LIMIT
    if text.lower() == "none":
        return None
    try:
        return parse_bytes(text)
    except UsageError as error:
        raise UsageError(f"{LIMIT_VARIABLE}: {error}, or none") from error


def parse_bytes(text: str) -> int:
    """Bytes in `500M`, `4G` or `1.5GiB` (powers of 1024).

    Raises:
        UsageError: it is no size.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:I?B)?", text.strip().upper())
    if match is None:
        raise UsageError(f"'{text}' is no size; write it as 500M, 4G or 1.5G")
    return int(float(match[1]) * _UNITS[match[2]])


def byte_text(size: float) -> str:
    """Bytes for people: `13.4 MB`, in powers of 1024."""
    for unit in ("B", "KB", "MB"):
        if size < 1024:
            return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} GB"


def trim(limit: int | None, keep: Path | None = None) -> list[CacheEntry]:
    """Remove what was unused for longest until the rest fits; returns what is gone.

    Args:
        limit: bytes; None removes nothing.
        keep: an entry that stays whatever its size: the one just built.

    Raises:
        OutputError: an entry cannot be removed.
    """
    found = entries()
    total = sum(entry.size for entry in found)
    surplus = []
    for entry in found:
        if limit is None or total <= limit:
            break
        if entry.path != keep:
            surplus.append(entry)
            total -= entry.size
    return remove(surplus)


def remove(surplus: Iterable[CacheEntry]) -> list[CacheEntry]:
    """Delete entries, and what killed processes left; returns the entries that are gone.

    Raises:
        OutputError: one cannot be deleted.
    """
    gone = []
    for entry in surplus:
        try:
            for suffix in ("", *_COMPANIONS):
                entry.path.with_name(entry.path.name + suffix).unlink(missing_ok=True)
        except OSError as error:
            raise OutputError(
                f"cannot remove {entry.path}: {error.strerror or error}. Mend the folder's "
                "permissions, or remove it as its owner"
            ) from error
        gone.append(entry)
    old = time.time() - _LEFTOVER_AGE_S
    for path in _files(_LEFTOVER):
        with contextlib.suppress(OSError):
            if path.stat().st_mtime < old:
                path.unlink()
    return gone


def _files(name: re.Pattern[str]) -> list[Path]:
    """Files of the cache whose whole name is of a form."""
    folder = cache_root() / "engines"
    return [
        Path(parent, file)
        for parent, _, files in os.walk(folder)
        for file in files
        if name.fullmatch(file)
    ]
