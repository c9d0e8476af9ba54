"""10,000 mutated inputs: each is read or refused; none crashes, hangs or leaks."""

from __future__ import annotations

import json
import logging
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("uvicorn", reason="the extra [serve] is not installed")

from fasterseg.errors import UsageError
from tests.shared import ROOT
from tests.slow import fuzz, fuzz_watch
from tests.slow.fuzz_case import HIDDEN, Case, Target
from tests.slow.fuzz_targets import TARGETS

pytestmark = [pytest.mark.slow, pytest.mark.onnx, pytest.mark.torch]

PROCESSES = 2
TIMEOUT_S = 1500


def test_there_are_10000_cases() -> None:
    assert sum(target.count for target in TARGETS.values()) == 10_000


def leave_thread() -> None:
    threading.Thread(target=time.sleep, args=(20,), daemon=True, name="forgotten").start()


def leave_file() -> None:
    tempfile.mkstemp()


def raise_foreign() -> None:
    raise KeyError("of a library")


def say_nothing() -> None:
    raise UsageError("")


def show_secret() -> None:
    raise UsageError(f"wrong password {HIDDEN}")


def log_exception() -> None:
    logging.getLogger("x").error("gone", exc_info=KeyError("unseen"))


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (leave_thread, "threads are left: forgotten"),
        (leave_file, "open files are left"),
        (raise_foreign, "KeyError: 'of a library'"),
        (say_nothing, "an error without a message"),
        (show_secret, "a secret is shown"),
        (log_exception, "KeyError: 'unseen'"),
    ],
)
def test_a_fault_is_found_and_told_with_the_command_that_repeats_it(
    fault: Callable[[], None], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def case(random: np.random.Generator, folder: Path) -> bool:
        fault()
        return True

    class Faulty(Target):
        def cases(self) -> AbstractContextManager[Case]:
            return nullcontext(case)

    monkeypatch.setattr(fuzz, "TARGETS", {"faulty": Faulty("", 1)})
    monkeypatch.setattr(fuzz, "SETTLING", 0)
    monkeypatch.setattr(fuzz_watch, "LEAVE_S", 0.1)
    report = fuzz.fuzz("faulty", 3, [7])
    assert re.search(message, report.faults[0])
    assert report.faults[0].startswith("python -m tests.slow.fuzz faulty --seed 3 --case 7\n")


def test_a_right_refusal_is_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    def case(random: np.random.Generator, folder: Path) -> bool:
        raise UsageError("give another one")

    class Right(Target):
        def cases(self) -> AbstractContextManager[Case]:
            return nullcontext(case)

    monkeypatch.setattr(fuzz, "TARGETS", {"right": Right("", 1, re.compile("is not JSON"))})
    report = fuzz.fuzz("right", 0, [0, 1])
    assert (report.cases, report.refused, report.past_header, report.faults) == (2, 2, 2, [])


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_mutated_input_is_read_or_refused(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    target = TARGETS[name]
    reports = _reports(name, target.count)
    cases, past_header = (sum(r[key] for r in reports) for key in ("cases", "past_header"))
    seconds = max(report["seconds"] for report in reports)
    with capsys.disabled():
        print(f" {name}: {cases} cases, {past_header} past the header, {seconds:.0f} s", end=" ")
    faults = [fault for report in reports for fault in report["faults"]]
    assert not faults, "\n\n".join(faults[:5])
    assert cases == target.count
    assert past_header >= target.floor * cases, reports


def _reports(name: str, count: int) -> list[dict[str, Any]]:
    """What several processes say of their shares of the cases."""
    first = [count * place // PROCESSES for place in range(PROCESSES + 1)]
    running = [
        subprocess.Popen(
            [
                *(sys.executable, "-m", "tests.slow.fuzz", name),
                *("--first", str(begin), "--count", str(end - begin)),
            ],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for begin, end in pairwise(first)
    ]
    found = []
    try:
        for process in running:
            out, log = process.communicate(timeout=TIMEOUT_S)
            assert process.returncode == 0, (
                f"{name} ended with {process.returncode}:\n{log[-4000:]}"
            )
            found.append(json.loads(out.strip().splitlines()[-1]))
    finally:
        for process in running:
            process.kill()
            process.communicate()
    return found
