"""The paper's pipeline, command by command, with its packaged settings made small."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("torch")

from fasterseg.arch.genotype import Genotype
from fasterseg.arch.space import SearchSpace
from fasterseg.bench.nominal import nominal_table
from fasterseg.cli.options import exit_code_of
from fasterseg.cli.search import app
from fasterseg.interrupts import SIGNALS
from fasterseg.runtime.model import resolve_model
from fasterseg.search.settings import CONFIGS
from fasterseg.types import Size
from tests.shared import shared

pytestmark = [pytest.mark.torch, pytest.mark.onnx]

SMALL = {
    r'crop = "\d+x\d+"': 'crop = "64x96"',
    r"batch = \d+": "batch = 2",
    r"layers = \d+": "layers = 7",
    r"widths = \[4, 6, 8, 10, 12\]": "widths = [4, 6]",
    r"evaluate_frames = \d+": "evaluate_frames = 1",
    r"scales = \[0.375, .*\]": "scales = [0.0625, 0.09]",
    r"target_ms = [\d.]+": "target_ms = 5.0",
    r"workers = \d+": "workers = 1",
}
"""What makes a packaged configuration one of seconds; all else is the paper's."""

COMMON = ("--images", "4", "--device", "cpu", "--threads", "1")


@pytest.fixture(scope="module")
def folder(workshop: Path) -> Path:
    """Small copies of the four configurations, and a table of the nominal device."""
    for path in (CONFIGS / "paper").glob("*.toml"):
        text = path.read_text(encoding="utf-8")
        for old, new in SMALL.items():
            text = re.sub(rf"^{old}", new, text, flags=re.MULTILINE)
        (workshop / path.name).write_text(text, encoding="utf-8")
    space = SearchSpace(layers=7, widths=(4, 6), num_classes=19)
    nominal_table(space, Size(128, 256), workshop / "table.json").save()
    return workshop


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Run the program on the Cityscapes samples; gives what it printed, both streams."""
    data = ("--data", str(shared("data/cityscapes-mini")))
    code = exit_code_of(app, [*arguments, *data, *COMMON])
    captured = capsys.readouterr()
    assert code == 0, captured.err[-3000:]
    return captured.out + captured.err


@pytest.fixture
def steps(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    torch = pytest.importorskip("torch")
    threads = torch.get_num_threads()
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    monkeypatch.chdir(folder)
    yield folder
    torch.set_num_threads(threads)
    for number, handler in handlers.items():
        signal.signal(number, handler)


def test_pretraining_and_co_search(steps: Path, capsys: pytest.CaptureFixture[str]) -> None:
    estimate = run(capsys, "pretrain", "pretrain.toml", "--output", "A", "--dry-run")
    assert "ms per step" in estimate
    assert not Path("A").exists()
    assert "step 2 of 2, finished" in run(capsys, "pretrain", "pretrain.toml", "--output", "A")
    search = ("cosearch", "search.toml", "--init", "A", "--table", "table.json", "--output", "B")
    assert re.search(r"\d+ keys, all in table.json", run(capsys, *search, "--dry-run"))
    printed = run(capsys, *search)
    assert "epoch 2 of 2" in printed
    assert "THE SEARCH DID NOT DECIDE" in printed, "two steps decide nothing"
    for name in ("B/genotype.json", "B/teacher.json"):
        assert Genotype.from_json(json.loads(Path(name).read_text())).num_classes == 19


def test_teacher_and_student_of_what_was_found(
    steps: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    teacher = ("train", "teacher.toml", "--arch", "B/teacher.json", "--output", "C")
    assert "ms per step" in run(capsys, *teacher, "--dry-run")
    assert "step 2 of 2, finished" in run(capsys, *teacher)
    student = ("train", "student.toml", "--arch", "B/genotype.json", "--output", "D")
    # Without --teacher: after two steps it knows no more than the student, and would be refused.
    assert "step 2 of 2, finished" in run(capsys, *student)
    for name, found in (("C", "B/teacher.json"), ("D", "B/genotype.json")):
        genotype = Genotype.from_json(json.loads(Path(found).read_text()))
        assert resolve_model(name).genotype.digest() == genotype.digest()


def test_a_pretraining_of_other_pictures_is_refused(
    steps: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    split = {"weights": ["another picture"], "architecture": [], "held_out": []}
    Path("other").mkdir()
    Path("other/split.json").write_text(json.dumps(split))
    data = ("--data", str(shared("data/cityscapes-mini")))
    code = exit_code_of(
        app, ["cosearch", "search.toml", "--init", "other", "--output", "E", *data, *COMMON]
    )
    assert code == 2
    assert "used other pictures" in capsys.readouterr().err


def test_settings_of_the_other_stage_are_refused(
    steps: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = ("--data", str(shared("data/cityscapes-mini")))
    code = exit_code_of(app, ["pretrain", "paper/search", "--output", "F", *data, *COMMON])
    assert code == 2
    assert "give paper/pretrain" in capsys.readouterr().err
