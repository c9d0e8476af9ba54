"""What the project has run, where and at which commit: records, and the README's table from them.

    python benchmarks/evidence.py run                      # every check that this machine can do
    python benchmarks/evidence.py run kernels-gpu --commit 1234abc --folder out/
    python benchmarks/evidence.py render                   # the table in README.md from all records
    python benchmarks/evidence.py check                    # is the table what the records say?

Two kinds of record say that something ran: `benchmarks/results` (written by `fasterseg-bench --save`)
and `benchmarks/evidence/<device>/<date>.json`, which `run` writes. A check is a run of named tests; it
counts where the tests that carry its claim passed. A skipped one leaves no record, a failed one does.
Records are only ever added; the latest of a check stands in the table.
"""

from __future__ import annotations

import argparse
import itertools
import json
import shlex
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal

from evidence_checks import CHECKS, ROWS, Check

from fasterseg.bench.device import detect
from fasterseg.bench.records import BenchRecord, current_commit, now
from fasterseg.errors import FastersegError

ROOT: Final = Path(__file__).resolve().parents[1]
RESULTS: Final = ROOT / "benchmarks" / "results"
EVIDENCE: Final = ROOT / "benchmarks" / "evidence"
README: Final = ROOT / "README.md"
SCHEMA: Final = 1

BEGIN: Final = "<!-- evidence: written by `make evidence`, not by hand -->"
END: Final = "<!-- end of evidence -->"
NEVER: Final = "never run by the project"


@dataclass(frozen=True)
class Outcome:
    """What became of a check.

    Attributes:
        name: of the check.
        command: what was run, from the repository's root.
        outcome: "passed"; "failed" where any test failed; "skipped" where one that carries the
            claim did not run, or none did.
        passed: number of tests.
        failed: likewise, errors included.
        skipped: likewise.
        reasons: why tests were skipped or failed, each once.
        seconds: how long it took.
    """

    name: str
    command: str
    outcome: Literal["passed", "failed", "skipped"]
    passed: int
    failed: int
    skipped: int
    reasons: tuple[str, ...]
    seconds: float


@dataclass(frozen=True)
class Seen:
    """One time that something was tried: where, at which commit, when, and how it ended."""

    device: str
    commit: str
    created: str
    passed: bool

    def __str__(self) -> str:
        return f"`{self.device}` at {shown_commit(self.commit)}"


def shown_commit(commit: str) -> str:
    """Seven digits, and whether the tree had changes besides; or a version, as it is."""
    digits, dash, state = commit.partition("-")
    is_hash = len(digits) == 40 and all(digit in "0123456789abcdef" for digit in digits)
    return f"`{digits[:7]}{dash}{state}`" if is_hash else commit


# --- running --------------------------------------------------------------------------------------


def run_check(check: Check) -> Outcome:
    """Run a check's tests in a process of their own."""
    arguments = ["-m", "pytest", "-q", *check.tests]
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        # Not captured: whoever waits for a GPU wants to see what happens.
        command = [sys.executable, *arguments, f"--junitxml={report}"]
        code = subprocess.run(command, cwd=ROOT, stdout=sys.stderr, check=False).returncode
        text = report.read_text(encoding="utf-8") if report.is_file() else "<testsuites/>"
    outcome = judge(check, text, code)
    seconds = round(time.monotonic() - start, 1)
    return Outcome(check.name, shlex.join(["python", *arguments]), *outcome, seconds)


def judge(
    check: Check, report: str, code: int
) -> tuple[Literal["passed", "failed", "skipped"], int, int, int, tuple[str, ...]]:
    """Outcome, numbers and reasons from pytest's JUnit report and exit code (5: no test)."""
    ran: list[str] = []
    skipped: list[str] = []
    failed = 0
    reasons: dict[str, None] = {}
    for case in ET.fromstring(report).iter("testcase"):
        name = case.get("name", "").partition("[")[0]
        told = [child for child in case if child.tag in ("failure", "error", "skipped")]
        messages = (child.get("message", "").replace(str(ROOT), ".") for child in told)
        reasons.update(dict.fromkeys(message[:200] for message in messages))
        if any(child.tag != "skipped" for child in told):
            failed += 1
        else:
            (skipped if told else ran).append(name)
    if failed or code not in (0, 5):
        outcome: Literal["passed", "failed", "skipped"] = "failed"
    elif check.proofs:
        complete = set(check.proofs) <= set(ran) and set(check.proofs).isdisjoint(skipped)
        outcome = "passed" if complete else "skipped"
    else:
        outcome = "passed" if ran and not skipped else "skipped"
    return outcome, len(ran), failed, len(skipped), tuple(reasons)


def run(names: Sequence[str], commit: str | None, folder: Path) -> bool:
    """Run checks and keep what ran, a file for each device; whether none failed."""
    known = {check.name: check for check in CHECKS}
    if unknown := sorted(set(names) - set(known)):
        sys.exit(f"unknown check {', '.join(unknown)}; known: {', '.join(known)}")
    commit = commit or tree_commit()
    done: dict[str, list[Outcome]] = {"cpu": [], "cuda": []}
    for check in (known[name] for name in names) if names else CHECKS:
        outcome = run_check(check)
        reasons = "".join(f"\n    {reason}" for reason in outcome.reasons)
        print(f"{check.name}: {outcome.outcome}, {outcome.passed} tests passed{reasons}")
        if outcome.outcome != "skipped":
            done[check.device].append(outcome)
    for device, outcomes in done.items():
        if outcomes:
            print(keep(outcomes, device, commit, folder))
    return all(o.outcome == "passed" for outcomes in done.values() for o in outcomes)


def tree_commit() -> str:
    """The checkout's commit, "-dirty" where what is checked differs from it."""
    commit = current_commit(ROOT).removesuffix("-dirty")
    folders = ("fasterseg", "cpp_plugins", "tests")
    command = ["git", "-C", str(ROOT), "status", "--porcelain", "--", *folders]
    status = subprocess.run(command, capture_output=True, text=True, check=False)
    return f"{commit}-dirty" if status.stdout.strip() else commit


def keep(outcomes: Iterable[Outcome], device: str, commit: str, folder: Path) -> Path:
    """Write a record that was not there before."""
    created = now()
    about = detect(("torch", "onnx", "tensorrt", "tensorrt-rtx-cu13", "pytest"), device)
    data = {
        "schema": SCHEMA,
        "created": created,
        "commit": commit,
        "device": about.to_json(),
        "checks": [asdict(outcome) for outcome in outcomes],
    }
    target = folder / about.id
    target.mkdir(parents=True, exist_ok=True)
    for number in itertools.count(1):
        path = target / f"{created[:10]}{f'-{number}' if number > 1 else ''}.json"
        if not path.exists():
            break
    path.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
    return path


# --- the table ------------------------------------------------------------------------------------


def seen_checks(folder: Path) -> dict[str, Seen]:
    """The latest run of each check."""
    found: dict[str, Seen] = {}
    for path in sorted(folder.glob("*/*.json")):
        data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if data["schema"] != SCHEMA:
            sys.exit(f"{path} is of schema {data['schema']}, this script reads {SCHEMA}")
        for check in data["checks"]:
            seen = Seen(
                data["device"]["id"], data["commit"], data["created"], check["outcome"] == "passed"
            )
            keep_latest(found, check["name"], seen)
    return found


def seen_engines(folder: Path) -> dict[tuple[str, str], Seen]:
    """The latest benchmark record with a cell of each backend and device."""
    found: dict[tuple[str, str], Seen] = {}
    for path in sorted(folder.glob("*/*.json")):
        record = BenchRecord.load(path)
        for cell in record.cells:
            seen = Seen(record.device.id, record.commit, record.created, passed=True)
            keep_latest(found, (cell.engine, cell.device), seen)
    return found


def keep_latest(found: dict[Any, Seen], key: object, seen: Seen) -> None:
    """Put what was seen in its place unless something later is there."""
    if key not in found or found[key].created <= seen.created:
        found[key] = seen


def table(results: Path = RESULTS, evidence: Path = EVIDENCE) -> str:
    """The table in Markdown, with its markers."""
    checks, engines = seen_checks(evidence), seen_engines(results)
    lines = [BEGIN, "| part | executed | short of that |", "| --- | --- | --- |"]
    shows = {check.name: check.shows for check in CHECKS}
    for row in ROWS:
        tried = [checks[name] for name in row.runs if name in checks]
        if row.engine in engines:
            tried.append(engines[row.engine])
        lesser = [
            f"{shows[name]}: {checks[name] if checks[name].passed else failed(checks[name])}"
            for name in row.lesser
            if name in checks
        ]
        lines.append(f"| {row.part} | {executed(tried)} | {'; '.join(lesser)} |")
    return "\n".join([*lines, END])


def executed(tried: Sequence[Seen]) -> str:
    """What the table says of everything that would be an execution."""
    if not tried:
        return NEVER
    last = max(tried, key=lambda seen: seen.created)
    return f"ran on {last}" if last.passed else failed(last)


def failed(seen: Seen) -> str:
    """What the table says of a check that did not pass."""
    return f"**failed** on {seen}"


def with_table(text: str, block: str) -> str:
    """The README with its block replaced."""
    head, begin, rest = text.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        sys.exit(f"README.md lacks the lines {BEGIN} and {END}")
    return head + block + tail


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    runner = commands.add_parser("run", help="run checks and keep a record of what ran")
    runner.add_argument("names", nargs="*", metavar="CHECK", help="default: all")
    runner.add_argument("--commit", help="of this tree, where it is no checkout")
    runner.add_argument("--folder", type=Path, default=EVIDENCE, help="where the record goes")
    commands.add_parser("render", help="write the table in README.md")
    commands.add_parser("check", help="fail where the table is not what the records say")
    arguments = parser.parse_args()
    if arguments.command == "run":
        try:
            if not run(arguments.names, arguments.commit, arguments.folder):
                sys.exit("a check failed; the record says so")
        except FastersegError as error:
            sys.exit(str(error))
        return
    text = README.read_text(encoding="utf-8")
    wanted = with_table(text, table())
    if arguments.command == "render":
        README.write_text(wanted, encoding="utf-8")
    elif wanted != text:
        sys.exit("README.md does not say what the records do; run: make evidence")


if __name__ == "__main__":
    main()
