"""The evidence table says what the records say, and a check counts only where its claim ran."""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from fasterseg.runtime.base import ENGINES
from tests.shared import ROOT

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="module")
def evidence(scripts: None) -> Any:
    return importlib.import_module("evidence")


def check(evidence: Any, proofs: tuple[str, ...] = ()) -> Any:
    return evidence.Check("a", ("tests",), proofs, "cpu", "shown")


def report(cases: Mapping[str, str]) -> str:
    """JUnit XML of test -> "passed", "skipped", "failure" or "error"."""
    inner = {"passed": ""}
    rows = [
        f'<testcase name="{name}">{inner.get(end, f"""<{end} message="why"/>""")}</testcase>'
        for name, end in cases.items()
    ]
    return f"<testsuites><testsuite>{''.join(rows)}</testsuite></testsuites>"


@pytest.mark.parametrize(
    ("cases", "proofs", "code", "outcome"),
    [
        ({"t": "passed"}, (), 0, "passed"),
        ({"t": "passed", "u": "skipped"}, (), 0, "skipped"),
        ({"t": "passed", "u": "skipped"}, ("t",), 0, "passed"),
        ({"t": "passed", "u": "skipped"}, ("u",), 0, "skipped"),
        ({"t[1]": "passed", "t[2]": "skipped"}, ("t",), 0, "skipped"),
        ({"t[1]": "passed", "t[2]": "passed"}, ("t",), 0, "passed"),
        ({"t": "passed"}, ("t", "gone"), 0, "skipped"),
        ({"t": "passed", "u": "failure"}, ("t",), 1, "failed"),
        ({"t": "passed", "u": "error"}, (), 1, "failed"),
        ({}, (), 5, "skipped"),
        ({}, ("t",), 4, "failed"),
    ],
)
def test_a_check_passes_where_its_proofs_ran(
    evidence: Any, cases: dict[str, str], proofs: tuple[str, ...], code: int, outcome: str
) -> None:
    judged = evidence.judge(check(evidence, proofs), report(cases), code)
    assert judged[0] == outcome
    assert judged[4] == (("why",) if set(cases.values()) - {"passed"} else ())


def record(
    folder: Path, name: str, outcome: str, commit: str = COMMIT, day: str = "2026-01-01"
) -> None:
    data = {
        "schema": 1,
        "created": f"{day}T00:00:00+00:00",
        "commit": commit,
        "device": {"id": "box"},
        "checks": [{"name": name, "outcome": outcome}],
    }
    (folder / "box").mkdir(exist_ok=True)
    (folder / "box" / f"{day}-{name}.json").write_text(json.dumps(data), encoding="utf-8")


def cells(evidence: Any, results: Path, folder: Path) -> dict[str, list[str]]:
    lines = evidence.table(results, folder).splitlines()[3:-1]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {row[0]: row[1:] for row in rows}


def test_without_records_nothing_ran(evidence: Any, tmp_path: Path) -> None:
    found = cells(evidence, tmp_path, tmp_path)
    assert len(found) == 10
    assert all(row == ["never run by the project", ""] for row in found.values())


def test_a_row_says_where_and_at_which_commit_it_ran(evidence: Any, tmp_path: Path) -> None:
    record(tmp_path, "kernels-gpu", "passed")
    record(tmp_path, "kernels-compiled", "passed", f"{COMMIT}-dirty")
    row = cells(evidence, tmp_path / "none", tmp_path)["CUDA kernels"]
    assert row[0] == "ran on `box` at `0123456`"
    assert row[1] == "compiled for sm_75 to sm_120, nothing spilled: `box` at `0123456-dirty`"


def test_what_is_short_of_running_never_counts_as_it(evidence: Any, tmp_path: Path) -> None:
    for name in ("rtx-build", "plugins-rtx", "tensorrt-logic", "harness", "kernels-emulated"):
        record(tmp_path, name, "passed")
    found = cells(evidence, tmp_path / "none", tmp_path)
    assert {row[0] for row in found.values()} == {"never run by the project"}
    assert "parsed and built on CPU, never executed" in found["TensorRT-RTX"][1]


def test_a_later_failure_takes_the_place_of_a_pass(evidence: Any, tmp_path: Path) -> None:
    record(tmp_path, "kernels-gpu", "passed", day="2026-01-02")
    record(tmp_path, "kernels-gpu", "failed", day="2026-01-03")
    row = cells(evidence, tmp_path / "none", tmp_path)["CUDA kernels"]
    assert row[0] == "**failed** on `box` at `0123456`"
    record(tmp_path, "kernels-gpu", "passed", day="2026-01-04")
    row = cells(evidence, tmp_path / "none", tmp_path)["CUDA kernels"]
    assert row[0].startswith("ran on")


def test_benchmark_records_are_evidence_of_their_backend(evidence: Any, tmp_path: Path) -> None:
    found = cells(evidence, evidence.RESULTS, tmp_path)
    assert re.fullmatch(r"ran on `[\w-]+` at `[0-9a-f]{7}`", found["ONNX Runtime, CPU"][0])


def test_every_backend_has_a_row_and_every_check_stands_in_one(evidence: Any) -> None:
    assert set(ENGINES) <= {row.engine[0] for row in evidence.ROWS if row.engine}
    named = [name for row in evidence.ROWS for name in (*row.runs, *row.lesser)]
    assert sorted(named) == sorted(check.name for check in evidence.CHECKS)


def test_checks_name_tests_that_exist(evidence: Any) -> None:
    for found in evidence.CHECKS:
        paths = [ROOT / name for name in found.tests if name.startswith("tests/")]
        assert paths
        assert all(path.exists() for path in paths), found
        text = "".join(path.read_text(encoding="utf-8") for path in paths if path.is_file())
        for proof in found.proofs:
            assert f"def {proof}(" in text, f"{found.name}: no test {proof}"


def test_records_are_added_and_never_overwritten(
    evidence: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evidence, "now", lambda: "2026-01-01T00:00:00+00:00")
    outcome = evidence.Outcome("torch-cpu", "python", "passed", 1, 0, 0, (), 0.1)
    written = [evidence.keep([outcome], "cpu", COMMIT, tmp_path) for _ in range(2)]
    assert [path.name for path in written] == ["2026-01-01.json", "2026-01-01-2.json"]
    assert evidence.seen_checks(tmp_path)["torch-cpu"].passed is True


def test_a_skipped_check_leaves_no_record(
    evidence: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    skipped = evidence.Outcome("harness", "python", "skipped", 0, 0, 1, ("no headers",), 0.1)
    monkeypatch.setattr(evidence, "run_check", lambda check: skipped)
    assert evidence.run(["harness"], COMMIT, tmp_path) is True
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_check_is_refused_with_the_known_ones(evidence: Any, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="known: torch-cpu"):
        evidence.run(["torch"], COMMIT, tmp_path)


def test_a_check_is_really_run(evidence: Any) -> None:
    real = evidence.Check(
        "a", ("tests/unit/test_types.py", "-k", "parse"), (), "cpu", "sizes are parsed"
    )
    outcome = evidence.run_check(real)
    assert (outcome.outcome, outcome.failed) == ("passed", 0)
    assert outcome.passed > 0


def test_committed_records_hold_commits_and_no_place_of_a_machine() -> None:
    for path in (ROOT / "benchmarks" / "evidence").glob("*/*.json"):
        text = path.read_text(encoding="utf-8")
        assert re.fullmatch(r"[0-9a-f]{40}(-dirty)?", json.loads(text)["commit"]), path
        assert not re.search(r'"[^"]*(/home/|/tmp/|/root/)', text), path


def test_the_readme_is_what_the_records_say(evidence: Any) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert evidence.with_table(text, evidence.table()) == text, "run: make evidence"
