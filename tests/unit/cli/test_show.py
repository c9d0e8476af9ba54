"""`fasterseg-search show`: a network in the terminal, or as a picture."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import pytest

from fasterseg.arch.latency import LatencyTable
from fasterseg.arch.plan import plan
from fasterseg.arch.space import SearchSpace
from fasterseg.bench.nominal import nominal_table
from fasterseg.cli.options import exit_code_of
from fasterseg.cli.search import app
from fasterseg.types import Size
from tests.unit.cli.conftest import Outcome
from tests.unit.retarget.nets import TINY

Show = Callable[..., Outcome]


@pytest.fixture
def show(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Show:
    """`show("tiny.json")`, in a folder that holds this file and a table for it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.json").write_text(json.dumps(TINY.to_json()))
    space = SearchSpace(layers=3, widths=(4, 8), stem_widths=(4,), head_widths=(4,), num_classes=11)
    nominal_table(space, Size(64, 128), tmp_path / "table.json", also=(TINY,)).save()

    def runner(*arguments: str) -> Outcome:
        capsys.readouterr()
        code = exit_code_of(app, ["show", *arguments])
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return runner


def test_a_genotype_is_drawn_with_a_table_of_its_parts(show: Show) -> None:
    outcome = show("tiny.json", "--size", "128x256")
    assert outcome.code == 0, outcome.stderr
    network = plan(TINY, Size(128, 256))
    assert f"{network.parameters / 1e6:.3f} M parameters" in outcome.stdout
    assert "├ zoom 256" in outcome.stdout
    rows = {line.split()[1]: line.split() for line in outcome.stdout.splitlines() if "cell" in line}
    assert rows["cell"] == ["1", "cell", "1", "conv_2x", "1/16", "64", "->", "64", "9.44"]
    assert max(map(len, outcome.stdout.splitlines())) <= 80
    assert "ms" not in outcome.stdout.split()


def test_a_table_sets_size_and_prices(show: Show, tmp_path: Path) -> None:
    outcome = show("tiny.json", "--table", "table.json")
    assert outcome.code == 0, outcome.stderr
    table = LatencyTable.load(tmp_path / "table.json")
    network = plan(TINY, table.size)
    assert f"{table.price(network).ms:.3f} ms by the table of nominal" in outcome.stdout
    assert "nothing was measured" in outcome.stdout
    row = next(line for line in outcome.stdout.splitlines() if " ffm " in line and "1/8 " in line)
    assert row.split()[-1] == f"{table[network.by_role['ffm'].spec]:.3f}"


def test_a_size_that_the_table_is_not_of_is_refused(show: Show) -> None:
    outcome = show("tiny.json", "--table", "table.json", "--size", "128x256")
    assert outcome.code == 2
    assert "64x128" in outcome.stderr


def test_models_have_names(show: Show) -> None:
    outcome = show("fasterseg-student")
    assert outcome.code == 0
    assert "1024x2048" in outcome.stdout
    assert show("fasterseg-studnet").code == 2


@pytest.mark.parametrize("ending", ["svg", "png"])
def test_a_picture_is_written_once(show: Show, ending: str, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    outcome = show("tiny.json", "-o", f"out/net.{ending}")
    assert (outcome.code, outcome.stdout) == (0, f"out/net.{ending}\n")
    written = tmp_path / "out" / f"net.{ending}"
    if ending == "png":
        assert cv2.imread(str(written)) is not None
    else:
        assert "<svg" in written.read_text()
    written.write_text("mine")
    assert "--overwrite" in show("tiny.json", "-o", f"out/net.{ending}").stderr
    assert written.read_text() == "mine"
    assert show("tiny.json", "-o", f"out/net.{ending}", "--overwrite").code == 0
    assert written.read_bytes() != b"mine"


def test_other_forms_are_refused(show: Show) -> None:
    pytest.importorskip("matplotlib")
    outcome = show("tiny.json", "-o", "net.pdf")
    assert outcome.code == 2
    assert ".svg or .png" in outcome.stderr


def test_without_matplotlib_a_picture_names_the_extra_and_text_still_works(
    show: Show, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.startswith("fasterseg.plots")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, "fasterseg.retarget.picture", raising=False)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    outcome = show("tiny.json", "-o", "net.svg")
    assert outcome.code == 4
    assert "pip install 'fasterseg[report]'" in outcome.stderr
    assert show("tiny.json").code == 0


def test_a_file_that_is_no_genotype_is_refused(show: Show, tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_text("{}")
    assert show("bad.json").code == 2
