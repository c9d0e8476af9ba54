"""`BenchRecord`: what was measured where, how and with what; stored once, never changed."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import fasterseg
from fasterseg.bench.cells import Cell
from fasterseg.bench.timing import TimingProtocol
from fasterseg.cache import make_folder
from fasterseg.config import from_mapping, parse_json
from fasterseg.errors import ConfigError, OutputError, UsageError
from fasterseg.types import DeviceInfo

SCHEMA: Final = 1
_NUMBERS: Final = re.compile(r"\[\s[-+.\deE,\s]+\]")


@dataclass(frozen=True, slots=True)
class BenchRecord:
    """Cells that share device, protocol, model and moment.

    Attributes:
        device: where it was measured.
        protocol: how times were taken.
        commit: git commit ("-dirty" when the package differs from it), or the installed version.
        created: ISO 8601, UTC.
        model: name of the model.
        trained: False for seeded random weights: times hold, labels mean nothing.
        cells: the figures.
        suite: what was run; part of the file's name.
    """

    device: DeviceInfo
    protocol: TimingProtocol
    commit: str
    created: str
    model: str
    trained: bool
    cells: tuple[Cell, ...]
    suite: str = "engines"

    def to_json(self) -> str:
        """Indented JSON; `from_json` is the inverse (schema in benchmarks/README.md)."""
        data = {
            "schema": SCHEMA,
            **{name: getattr(self, name) for name in _PLAIN},
            "protocol": self.protocol.to_json(),
            "device": self.device.to_json(),
            "cells": [cell.to_json() for cell in self.cells],
        }
        # A list of plain numbers takes one line, whatever its length.
        return _NUMBERS.sub(lambda list_: " ".join(list_[0].split()), json.dumps(data, indent=2))

    @classmethod
    def from_json(cls, text: str, where: str) -> BenchRecord:
        """Read a record; `where` names the file in errors.

        Raises:
            ConfigError: not a record, one of another schema, or a key is missing, unknown or of
                the wrong type.
        """
        data = _object(text, where)
        try:
            plain = from_mapping({key: data[key] for key in _PLAIN}, _Plain, where)
            device = from_mapping({**data["device"], "details": {}}, DeviceInfo, f"{where}: device")
            cells = tuple(
                Cell.from_json(cell, f"{where}: cells[{i}]") for i, cell in enumerate(data["cells"])
            )
            return cls(
                device=replace(device, details=dict(data["device"]["details"])),
                protocol=from_mapping(data["protocol"], TimingProtocol, f"{where}: protocol"),
                cells=cells,
                **asdict(plain),
            )
        except (KeyError, TypeError, ValueError, AttributeError, UsageError) as error:
            if isinstance(error, ConfigError):
                raise
            raise ConfigError(f"{where} is not a benchmark record ({error!r})") from error

    @classmethod
    def load(cls, path: Path) -> BenchRecord:
        """Read a record from a file.

        Raises:
            ConfigError: see `from_json`, or the file cannot be read.
        """
        try:
            return cls.from_json(path.read_text(encoding="utf-8"), str(path))
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"cannot read {path}: {error}") from error

    def save(self, folder: Path) -> Path:
        """Store the record as `<device>/<date>-<suite>.json` in `folder`, beside earlier ones.

        A file that exists is never touched: the new one gets the next number.

        Returns:
            The path written.

        Raises:
            UsageError: the version of an engine's runtime is unknown.
            OutputError: it cannot be written.
        """
        unknown = sorted({cell.engine for cell in self.cells} - set(self.device.runtimes))
        if unknown:
            raise UsageError(
                f"the version of {', '.join(unknown)} is unknown, so the record would not say "
                "what was measured; install it as a package, or use --json FILE instead of --save"
            )
        target = make_folder(folder / self.device.id)
        stem = target / f"{self.created[:10]}-{self.suite}"
        for number in itertools.count(1):
            path = stem.with_name(f"{stem.name}{f'-{number}' if number > 1 else ''}.json")
            if _write_new(path, self.to_json() + "\n"):
                break
        return path


def current_commit(root: Path | None = None) -> str:
    """Commit of the checkout the package runs from, "-dirty" when the package differs from it.

    Args:
        root: folder of the checkout; default: the one around the package.

    Returns:
        The commit, or "fasterseg <version>" outside a checkout.
    """
    root = root or Path(fasterseg.__file__).parents[1]
    # Only the package's own checkout: site-packages may lie inside a user's repository.
    commit = _git(root, "rev-parse", "HEAD") if (root / ".git").exists() else None
    if commit is None:
        return f"fasterseg {fasterseg.__version__}"
    dirty = _git(root, "status", "--porcelain", "--", "fasterseg")
    return f"{commit}-dirty" if dirty else commit


def now() -> str:
    """This moment as a record stores it: ISO 8601, UTC, seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _write_new(path: Path, text: str) -> bool:
    """Write a file that must not exist; False when it does."""
    try:
        # Mode "x" and not a test before: two runs may end in the same moment.
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        return False
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error
    return True


def _git(root: Path, *arguments: str) -> str | None:
    command = ["git", "-C", str(root), *arguments]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip()


@dataclass(frozen=True, slots=True)
class _Plain:
    """The fields of `BenchRecord` that JSON holds as they are."""

    commit: str
    created: str
    model: str
    trained: bool
    suite: str


_PLAIN: Final = tuple(field.name for field in fields(_Plain))


def _object(text: str, where: str) -> dict[str, Any]:
    try:
        data = parse_json(text)
    except ValueError as error:
        raise ConfigError(f"{where} is not JSON: {error}") from error
    schema = data.get("schema") if isinstance(data, dict) else None
    if not isinstance(data, dict) or schema != SCHEMA:
        raise ConfigError(
            f"{where} is not a benchmark record of schema {SCHEMA} (found {schema}); write one "
            "with: fasterseg-bench --json FILE"
        )
    return data
