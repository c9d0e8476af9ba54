"""Feed mutated input to everything that reads what others wrote.

    python -m tests.slow.fuzz TARGET [--seed N] [--first N] [--count N]
    python -m tests.slow.fuzz TARGET --case N     one case again, as often as a leak needs to show

Prints one JSON object: cases, how many got past the header, and every outcome that is neither a
result nor an error of ours: another exception, a case that hangs, a secret that is shown, threads,
open files and temporary files that are left. Runs in a process of its own, so that a crash of a
decoder is seen as what it is; the last line before it names the case.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import logging
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from unittest import mock

import numpy as np

from fasterseg.errors import FastersegError
from tests.slow.fuzz_case import Case, Target, told
from tests.slow.fuzz_targets import TARGETS
from tests.slow.fuzz_watch import Watch

CASE_TIMEOUT_S = 60
SETTLING = 3
"""First cases of a process, which open what libraries then keep open."""


@dataclass
class Report:
    """What a run found."""

    target: str
    seed: int
    cases: int = 0
    past_header: int = 0
    refused: int = 0
    seconds: float = 0.0
    faults: list[str] = field(default_factory=list)

    def fault(self, index: int, what: str) -> None:
        """Note a fault, with the command that shows it again."""
        again = f"python -m tests.slow.fuzz {self.target} --seed {self.seed} --case {index}"
        self.faults.append(f"{again}\n{what}")


class _Log(logging.Handler):
    """Takes what is logged for people to read."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

        self.raised: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())
        if record.exc_info:
            self.raised.append(logging.Formatter().format(record))

    def judge(self) -> None:
        """Whether that is fit for people.

        Raises:
            AssertionError: it holds a secret, or an exception that nobody caught.
        """
        told(*self.lines)
        assert not self.raised, "\n".join(self.raised)

    def begin(self) -> None:
        """Forget what was logged before."""
        self.lines.clear()
        self.raised.clear()


@dataclass
class _Run:
    """One target in a folder of its own."""

    target: Target
    case: Case
    report: Report
    watch: Watch
    log: _Log
    keep: Path | None

    def one(self, index: int, *, settled: bool) -> None:
        """Run a case and judge its outcome."""
        report, faults = self.report, len(self.report.faults)
        report.cases += 1
        # Straight to the descriptor: it must be there even if the next thing is a crash.
        os.write(2, f"{report.target} {report.seed} {index}\n".encode())
        self.watch.begin()
        self.log.begin()
        faulthandler.dump_traceback_later(CASE_TIMEOUT_S, exit=True)
        try:
            report.past_header += self._passes(index)
            self.log.judge()
        except Exception:  # noqa: BLE001 - whatever else comes out is what fuzzing looks for
            report.fault(index, traceback.format_exc())
        for sentence in self.watch.left():
            if settled:
                report.fault(index, sentence)
        faulthandler.cancel_dump_traceback_later()
        if len(report.faults) > faults and self.keep is not None:
            self._keep(self.keep, index)

    def _passes(self, index: int) -> bool:
        """Whether the case got past the header."""
        random = np.random.default_rng([self.report.seed, index])
        try:
            return self.case(random, self.watch.case)
        except FastersegError as error:
            self.report.refused += 1
            message = str(error)
            assert message.strip(), "an error without a message"
            told(message)
            early = self.target.early
            return early is not None and early.search(message) is None

    def _keep(self, keep: Path, index: int) -> None:
        for file in self.watch.case.rglob("*"):
            if file.is_file():
                name = f"{self.report.target}-{self.report.seed}-{index}-{file.name}"
                (keep / name).write_bytes(file.read_bytes())


def fuzz(name: str, seed: int, indices: list[int], keep: Path | None = None) -> Report:
    """Run these cases of a target."""
    target, report = TARGETS[name], Report(name, seed)
    with _apart() as watch, _logged() as log:
        began_s = time.monotonic()
        with target.cases() as case:
            run = _Run(target, case, report, watch, log, keep)
            for place, index in enumerate(indices):
                run.one(index, settled=place >= SETTLING)
        report.seconds = round(time.monotonic() - began_s, 1)
    return report


@contextmanager
def _apart() -> Iterator[Watch]:
    """Folders of our own for all that is written; nothing of the user's is looked at."""
    with tempfile.TemporaryDirectory() as name:
        private = Path(name)
        temporary = private / "tmp"
        temporary.mkdir()
        places = {"FASTERSEG_CACHE": "cache", "FASTERSEG_HOME": "home", "TMPDIR": "tmp"}
        with (
            mock.patch.dict(os.environ, {key: f"{name}/{place}" for key, place in places.items()}),
            mock.patch.object(tempfile, "tempdir", str(temporary)),
        ):
            for variable in ("http_proxy", "HTTP_PROXY", "FASTERSEG_VIEW_TOKEN"):
                os.environ.pop(variable, None)
            yield Watch(private / "case", temporary)


@contextmanager
def _logged() -> Iterator[_Log]:
    log = _Log()
    logging.getLogger().addHandler(log)
    try:
        yield log
    finally:
        logging.getLogger().removeHandler(log)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", choices=sorted(TARGETS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--case", type=int, help="only this one")
    parser.add_argument("--keep", type=Path, help="folder for the files of faulty cases")
    given = parser.parse_args()
    faulthandler.enable()
    indices = list(range(given.first, given.first + given.count))
    if given.case is not None:
        indices = [given.case] * (SETTLING + 1)
    print(json.dumps(asdict(fuzz(given.target, given.seed, indices, given.keep))))
    sys.stdout.flush()


if __name__ == "__main__":
    main()
