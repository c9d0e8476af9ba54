"""The marker rules of `tests/conftest.py`, tried on a small suite in a process of its own."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from fasterseg.arch.genotype import Genotype
from fasterseg.arch.plan import Plan

ROOT = Path(__file__).resolve().parents[2]

SUITE = """
import pytest


@pytest.mark.slow
def test_slow(): ...


@pytest.mark.bench
def test_bench(): ...


@pytest.mark.nowhere
def test_needs_what_is_missing(): raise AssertionError("must not run")


def test_plain(): ...
"""

LOCAL_CONFTEST = """
from tests.conftest import *
from tests import conftest

conftest.REQUIREMENTS = {"nowhere": lambda: "not on this machine", "here": lambda: None}
"""


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    """A folder with the project's conftest, one requirement that is met and one that is not."""
    (tmp_path / "conftest.py").write_text(LOCAL_CONFTEST, encoding="utf-8")
    (tmp_path / "test_suite.py").write_text(SUITE, encoding="utf-8")
    markers = "markers = slow\n    bench\n    nowhere\n    here\n"
    (tmp_path / "pytest.ini").write_text(f"[pytest]\n{markers}", encoding="utf-8")
    return tmp_path


def run(suite: Path, *arguments: str) -> tuple[dict[str, int], str]:
    """Outcome -> number of tests, and everything that was printed."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-rs", "-p", "no:cacheprovider", *arguments],
        cwd=suite,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    text = done.stdout + done.stderr
    counts = re.findall(r"(\d+) (passed|failed|skipped|deselected)", text.splitlines()[-1])
    return {outcome: int(count) for count, outcome in counts}, text


def test_slow_and_bench_wait_to_be_asked_for(suite: Path) -> None:
    counts, _ = run(suite)
    assert counts == {"passed": 1, "skipped": 1, "deselected": 2}


@pytest.mark.parametrize(
    ("arguments", "passed", "deselected"),
    [
        (["--run-slow"], 2, 1),
        (["--run-slow", "--run-bench"], 3, 0),
        (["-m", "slow"], 1, 3),
        (["-m", "not slow and not nowhere"], 1, 3),
    ],
)
def test_slow_and_bench_run_when_asked_for(
    suite: Path, arguments: list[str], passed: int, deselected: int
) -> None:
    counts, text = run(suite, *arguments)
    assert counts.get("passed") == passed, text
    assert counts.get("deselected", 0) == deselected, text


def test_a_missing_requirement_skips_with_its_reason(suite: Path) -> None:
    _, text = run(suite)
    assert "nowhere: not on this machine" in text


@pytest.mark.parametrize(
    ("promise", "complaint"),
    [
        ("nowhere", "'nowhere' tests would skip: not on this machine"),
        ("elsewhere", "unknown marker 'elsewhere'"),
        ("here", "no 'here' test is among those to run"),
        ("slow", "no 'slow' test is among those to run"),
    ],
)
def test_a_broken_promise_stops_the_run(suite: Path, promise: str, complaint: str) -> None:
    counts, text = run(suite, "--require-markers", promise)
    assert counts == {}
    assert complaint in text


def test_a_kept_promise_changes_nothing(suite: Path) -> None:
    counts, text = run(suite, "--run-slow", "--require-markers", "slow")
    assert counts.get("passed") == 2, text


def test_tiny_network_has_every_kind_of_operator_strided_and_not(
    tiny_genotype: Genotype, tiny_plan: Plan
) -> None:
    kinds = {(node.spec.op, node.spec.stride) for node in tiny_plan.nodes}
    operators = ("conv", "conv_downup", "conv_2x", "conv_2x_downup")
    assert {(op, stride) for op in operators for stride in (1, 2)} <= kinds
    assert [branch.final_rate for branch in tiny_genotype.branches] == [32, 16]
    assert "cell.0.0" in tiny_plan.by_role
    assert "cell.0.1" not in tiny_plan.by_role
