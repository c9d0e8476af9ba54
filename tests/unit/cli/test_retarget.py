"""`fasterseg-search run` and its parts as programs: what they ask for, refuse and estimate."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")

from fasterseg.arch.space import SearchSpace
from fasterseg.bench.nominal import nominal_table
from fasterseg.datasets.rendered import write_streets
from fasterseg.types import Size
from tests.unit.cli.conftest import Outcome, Run

pytestmark = pytest.mark.torch

DATA = ("--dataset", "data/streets.toml", "--device", "cpu")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few rendered pictures as a data set."""
    folder = tmp_path_factory.mktemp("pictures")
    write_streets(folder, {"train": 12, "val": 1, "test": 1}, Size(64, 96), seed=7)
    return folder


@pytest.fixture
def program(run: Run, pictures: Path) -> Run:
    """`program("run", ...)` in a folder with a data set under `data/`."""
    Path("data").symlink_to(pictures)

    def search(*arguments: str) -> Outcome:
        return run("search", *arguments)

    return search


def test_a_run_says_which_settings_there_are(program: Run) -> None:
    outcome = program("run", "--output", "out")
    assert outcome.code == 2
    assert "camvid-cpu" in outcome.stderr
    outcome = program("run", "camvid-gpu", "--output", "out")
    assert outcome.code == 2
    assert "known: camvid-cpu, cityscapes-gpu, smoke" in outcome.stderr


def test_the_miniature_takes_no_settings(program: Run) -> None:
    outcome = program("run", "smoke", "--smoke", "--output", "out")
    assert outcome.code == 2
    assert "its own settings" in outcome.stderr


def test_what_the_report_needs_is_told_before_anything_is_trained(
    program: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.startswith("fasterseg.retarget.report")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "jinja2", None)
    for arguments in (("run", "smoke", *DATA, "--output", "out"), ("report", "out")):
        outcome = program(*arguments)
        assert outcome.code == 4
        assert "pip install 'fasterseg[report]'" in outcome.stderr
    assert not Path("out").exists()


def test_unknown_stages_are_refused(program: Run) -> None:
    for option in ("--stages", "--skip", "--redo"):
        outcome = program("run", "smoke", *DATA, "--output", "out", option, "supermarket")
        assert outcome.code == 2
        assert "supernet" in outcome.stderr, "the known ones are listed"


def test_two_kinds_of_target_are_refused(program: Run) -> None:
    aims = ("--target-latency-ms", "3", "--target-fps", "30")
    outcome = program("search", "smoke", *DATA, "--output", "out", *aims)
    assert outcome.code == 2
    assert "one kind of target" in outcome.stderr


def test_a_dry_run_tells_time_memory_and_keys_and_writes_nothing(program: Run) -> None:
    outcome = program("run", "smoke", *DATA, "--output", "out", "--threads", "1", "--dry-run")
    assert outcome.code == 0, outcome.stderr
    lines = dict(line.split(": ", 1) for line in outcome.stdout.splitlines())
    assert set(lines) == {"measure", "supernet", "search", "train"}
    assert "keys" in lines["measure"]
    assert "GiB on cpu" in lines["supernet"]
    assert "at most 56 networks to score for 2 targets" in lines["search"]
    assert lines["train"].startswith("4 networks, each: 12 training pairs")
    assert not Path("out").exists()


def test_a_table_that_lacks_rows_is_refused_before_anything_is_trained(program: Run) -> None:
    space = SearchSpace(layers=6, ops=("conv",), widths=(4,), num_classes=11)
    nominal_table(space, Size(96, 128), Path("table.json")).save()
    outcome = program("search", "smoke", *DATA, "--table", "table.json", "--output", "out")
    assert outcome.code == 2
    assert "operators that networks of the space can hold" in outcome.stderr
    assert "fasterseg-bench ops" in outcome.stderr
    assert not Path("out/supernet").exists()


def test_a_table_of_another_size_or_device_is_refused(program: Run) -> None:
    nominal_table(SearchSpace(num_classes=11), Size(64, 128), Path("table.json")).save()
    command = ("search", "smoke", *DATA, "--table", "table.json", "--output", "out")
    outcome = program(*command)
    assert outcome.code == 2
    assert "size 64x128" in outcome.stderr
    data = json.loads(Path("table.json").read_text())
    Path("table.json").write_text(json.dumps({**data, "size": "96x128"}).replace("nominal", "x1"))
    outcome = program(*command)
    assert outcome.code == 2
    assert "was measured with device x1" in outcome.stderr


def test_a_report_of_no_run_is_refused(program: Run) -> None:
    outcome = program("report", "nowhere")
    assert outcome.code == 2
    assert "nowhere" in outcome.stderr
