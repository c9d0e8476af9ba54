"""`Ledger`: every score of a search in one file, so that nothing is scored twice.

A search that goes on after a kill is run again from its start: it makes the same choices, takes
the scores that are there, and adds the others. So it ends as if nothing had happened.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from fasterseg.arch.genotype import Genotype
from fasterseg.cache import make_folder, write_atomic
from fasterseg.config import parse_json
from fasterseg.errors import ConfigError, OutputError, UsageError
from fasterseg.search.pareto import How, Scored
from fasterseg.search.window import Candidate

Score = Callable[[Sequence[Genotype]], Sequence[float]]
"""Networks -> their scores, more is better; the same network always gets the same."""

CHUNK: Final = 8
"""Networks that are scored before their scores are stored."""


class Ledger:
    """Scores of networks under one supernet, appended to a file of JSON lines.

    A line that a kill cut short is left out, and replaced when the file is next written. Several
    targets share a file. Lines of other supernets stay in it and count for nothing.

    Args:
        path: the file; None keeps scores in memory only.
        key: of the supernet and of all else that scores depend on; see `SubnetScorer.key`.
        writes: whether this process writes the file: one of a group does, all read it.
        chunk: networks that are scored before their scores are stored.

    Raises:
        ConfigError: the file holds something else.
        OutputError: it cannot be read or written.
    """

    def __init__(
        self, path: Path | None, key: str, *, writes: bool = True, chunk: int = CHUNK
    ) -> None:
        self.key = key
        self._path = path if writes else None
        self._chunk = chunk
        self._lines: list[Scored] = []
        self._places: set[tuple[Any, ...]] = set()
        self._known: dict[str, float] = {}
        if path is not None and path.exists():
            self._load(path, writes)

    def _load(self, path: Path, writes: bool) -> None:
        try:
            data = path.read_bytes()
        except OSError as error:
            raise OutputError(f"cannot read {path}: {error.strerror or error}") from error
        whole = data[: data.rfind(b"\n") + 1]
        if whole != data and writes:
            write_atomic(path, whole)
        for number, line in enumerate(whole.splitlines(), start=1):
            self._remember(_parsed(line, self.key, f"{path}, line {number}"))

    def _remember(self, one: Scored | None) -> None:
        if one is not None:
            self._lines.append(one)
            self._places.add(_place(one))
            self._known[one.digest] = one.miou

    @property
    def scored(self) -> list[Scored]:
        """Everything scored under this key, in order; a network once for each time it was met."""
        return list(self._lines)

    def score(
        self,
        candidates: Sequence[Candidate],
        score: Score,
        *,
        how: How,
        number: int,
        target_ms: float,
    ) -> list[Scored]:
        """Score candidates, those that have a score already at no cost, and store all of them.

        Args:
            candidates: different networks.
            score: called with those that have no score yet, a few at a time.
            how: what came upon them.
            number: of the round.
            target_ms: latency that is searched for.

        Raises:
            OutputError: the file cannot be written.
            UsageError: a score is not a finite number.
        """
        found: list[Scored] = []
        for start in range(0, len(candidates), self._chunk):
            chunk = candidates[start : start + self._chunk]
            self._learn([one for one in chunk if one.digest not in self._known], score)
            lines = [
                Scored(
                    genotype=one.genotype,
                    digest=one.digest,
                    ms=one.ms,
                    miou=self._known[one.digest],
                    how=how,
                    round=number,
                    target_ms=target_ms,
                )
                for one in chunk
            ]
            self._append(lines)
            found += lines
        return found

    def _learn(self, unknown: Sequence[Candidate], score: Score) -> None:
        if not unknown:
            return
        values = score([one.genotype for one in unknown])
        for one, value in zip(unknown, values, strict=True):
            if not math.isfinite(value):
                raise UsageError(
                    f"network {one.digest[:12]} scored {value}; its supernet is broken. Train it "
                    "anew with a lower learning rate"
                )
            self._known[one.digest] = float(value)

    def _append(self, lines: Sequence[Scored]) -> None:
        """Store what is not there yet: a search that goes on meets its own lines again."""
        new = [one for one in lines if _place(one) not in self._places]
        for one in new:
            self._remember(one)
        if self._path is None or not new:
            return
        text = "".join(json.dumps({**one.to_json(), "supernet": self.key}) + "\n" for one in new)
        make_folder(self._path.parent)
        try:
            with self._path.open("ab") as file:
                file.write(text.encode())
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise OutputError(f"cannot write {self._path}: {error.strerror or error}") from error


def _place(one: Scored) -> tuple[Any, ...]:
    return (one.digest, one.how, one.round, one.target_ms, one.ms)


def _parsed(line: bytes, key: str, where: str) -> Scored | None:
    """What a line says; None where it is of another supernet."""
    try:
        data = parse_json(line)
        supernet = data.pop("supernet")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"{where} is no score of a search ({error!r}); restore the file, or remove it and "
            "score anew"
        ) from error
    return Scored.from_json(data, where) if supernet == key else None
