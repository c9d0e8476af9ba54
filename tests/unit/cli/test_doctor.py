"""`fasterseg doctor`: what is there is ok, what is not has the line that mends it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from fasterseg.cli import doctor
from fasterseg.errors import UnknownNameError
from fasterseg.finding import Finding
from fasterseg.registry import resolve
from tests.unit.cli.conftest import Run

pytestmark = pytest.mark.onnx

OK = Finding("good", "ok", "1.2")
ABSENT = Finding("option", "missing", "not installed", "pip install 'fasterseg[train]'")
BROKEN = Finding("extra thing", "broken", "will not load", "pip install --force-reinstall it")
FATAL = Finding("onnxruntime", "broken", "no such file", "pip install onnxruntime", needed=True)
LATER = Finding("tensorrt", "not yet", "this version has no such engine")

Answers = Mapping[str, list[Finding]]


@pytest.fixture
def answer(monkeypatch: pytest.MonkeyPatch) -> Callable[[Answers], None]:
    """`answer({"codecs": [finding]})`: what the probes say; all others say `OK`."""

    def answering(answers: Answers) -> None:
        monkeypatch.setattr(doctor, "_in_child", lambda probe: answers.get(probe, [OK]))

    return answering


def test_this_machine_is_examined_for_real(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    # Importing torch takes as long as all the rest.
    monkeypatch.setattr(doctor, "SECTIONS", {**doctor.SECTIONS, "Engines": ("onnxruntime",)})
    outcome = run("doctor", "--json")
    report = json.loads(outcome.stdout)
    assert outcome.code == 0, report
    assert report["ok"] is True
    assert set(report["sections"]) == set(doctor.SECTIONS)
    findings = {f["name"]: f for group in report["sections"].values() for f in group}
    for name in ("system", "numpy", "onnxruntime on cpu", "encoder H.264", "encoder FFV1", "cache"):
        assert findings[name]["state"] == "ok", findings[name]
    assert "fasterseg-camvid" in findings


def test_every_probe_belongs_to_a_section_and_resolves() -> None:
    shown = [name for names in doctor.SECTIONS.values() for name in names]
    assert sorted(shown) == list(doctor.PROBES)
    assert set(shown) >= doctor.NEEDED
    for name in set(shown) - {"torch"}:
        assert callable(resolve(doctor.PROBES, "probe", name))


def test_a_sound_machine_is_said_to_be_one(run: Run, answer: Callable[[Answers], None]) -> None:
    answer({"torch": [ABSENT], "openvino": [LATER]})
    outcome = run("doctor")
    assert outcome.code == 0
    assert outcome.stdout.splitlines()[-1] == "fasterseg can segment files here."
    assert "mend: pip install 'fasterseg[train]'" in outcome.stdout
    assert "not yet  tensorrt" in outcome.stdout
    assert outcome.stdout.isascii()


def test_what_is_broken_but_not_needed_leaves_the_exit_code(
    run: Run, answer: Callable[[Answers], None]
) -> None:
    answer({"torch": [BROKEN]})
    outcome = run("doctor")
    assert outcome.code == 0
    assert "Broken: extra thing." in outcome.stdout


def test_what_is_needed_and_broken_is_exit_code_4(
    run: Run, answer: Callable[[Answers], None]
) -> None:
    answer({"onnxruntime": [FATAL]})
    outcome = run("doctor")
    assert outcome.code == 4
    last = outcome.stdout.splitlines()[-1]
    assert last == "fasterseg cannot segment a file here; mend first: onnxruntime"
    answer({"onnxruntime": [FATAL]})
    report = json.loads(run("doctor", "--json").stdout)
    assert report["ok"] is False
    assert report["sections"]["Engines"][0]["remedy"] == "pip install onnxruntime"


def test_long_details_are_wrapped_and_remedies_are_not() -> None:
    long = Finding("x", "broken", "word " * 40, "pip install " + "y" * 120)
    lines = doctor.render({"Group": [long, OK]}, columns=80)
    details = [line for line in lines if "word" in line]
    assert len(details) > 2
    assert max(map(len, details)) <= 80
    assert any(line.endswith("mend: pip install " + "y" * 120) for line in lines)


def test_a_probe_that_crashes_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_CHILD", "import os; os.abort()")
    (finding,) = doctor._in_child("codecs")
    assert (finding.state, finding.needed) == ("broken", True)
    assert "-6" in finding.detail
    assert finding.remedy
    assert not doctor._in_child("torch")[0].needed


def test_a_probe_that_fails_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_CHILD", "raise ImportError('libGL.so.1 is missing')")
    (finding,) = doctor._in_child("windows")
    assert finding.detail == "ImportError: libGL.so.1 is missing"


def test_a_probe_that_hangs_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_CHILD", "import time; time.sleep(60)")
    monkeypatch.setattr(doctor, "LIMIT_S", 0.2)
    (finding,) = doctor._in_child("torch")
    assert "no answer" in finding.detail


def test_libraries_may_print_before_they_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_CHILD", "print('hello'); print('[]')")
    assert doctor._in_child("codecs") == []


def test_an_unknown_probe_is_refused(run: Run) -> None:
    assert run("doctor", "--probe", "everything").code == UnknownNameError.exit_code


def test_nothing_is_left_on_the_machine(run: Run, tmp_path: Path) -> None:
    for probe in ("storage", "models", "onnxruntime"):
        assert run("doctor", "--probe", probe).code == 0
    assert list(tmp_path.iterdir()) == []
