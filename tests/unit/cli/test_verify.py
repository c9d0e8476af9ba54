"""`fasterseg verify --layers` as users type it; verdicts on labels are in test_artefacts.py."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import onnx
import pytest
from onnx import numpy_helper

from tests.unit.cli.conftest import Run

pytestmark = pytest.mark.onnx

CAMVID = "fasterseg-camvid"
LAYER = "cell.4.0/1.conv"


@pytest.fixture
def pair(run: Run) -> None:
    """`a.onnx`, and `b.onnx` with another weight in the middle."""
    pytest.importorskip("polygraphy", reason="polygraphy not installed")
    run("export", CAMVID, "--size", "128x192", "--inline", "-o", "a.onnx")
    model = onnx.load("a.onnx")
    tensor = next(t for t in model.graph.initializer if t.name == "cell.4.0.conv1.weight")
    tensor.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(tensor), tensor.name))
    onnx.save(model, "b.onnx")


@pytest.mark.usefixtures("pair")
def test_the_first_diverging_layer_is_marked_in_the_table(run: Run) -> None:
    outcome = run("verify", "a.onnx", "b.onnx", "--layers", "--limit", "1", "--threshold", "0")
    assert outcome.code == 0, outcome.stderr
    marked = [line for line in outcome.stderr.splitlines() if line.startswith("->")]
    assert [line.split()[0] for line in marked] == [f"->{LAYER}"]
    assert f"the first is {LAYER} (Conv)" in outcome.stderr
    assert outcome.stdout == ""


@pytest.mark.usefixtures("pair")
def test_layers_are_in_the_json_and_not_in_the_kept_verdict(run: Run, tmp_path: Path) -> None:
    arguments = ("a.onnx", "b.onnx", "--layers", "--limit", "1", "--json", "-")
    outcome = run("verify", *arguments)
    # Labels decide about the code: these networks differ.
    assert outcome.code == 5
    data = json.loads(outcome.stdout)
    assert data["layers"]["first_diverging"] == LAYER
    rows = data["layers"]["layers"]
    assert next(row["name"] for row in rows if row["diverges"]) == LAYER
    assert "layers" not in json.loads((tmp_path / "b.onnx.parity.json").read_text())


@pytest.mark.usefixtures("pair")
def test_layers_never_decide_about_the_exit_code(run: Run) -> None:
    outcome = run("verify", "a.onnx", "b.onnx", "--layers", "--limit", "1", "--threshold", "0")
    assert (outcome.code, "diverge (" in outcome.stderr) == (0, True)
    same = run("verify", "a.onnx", "a.onnx", "--layers", "--limit", "1", "--threshold", "1")
    assert same.code == 0
    assert "none diverges" in same.stderr


def test_backends_are_compared_in_the_precision_asked_for(run: Run) -> None:
    pytest.importorskip("polygraphy", reason="polygraphy not installed")
    arguments = ("onnxruntime", "onnxruntime", "--precision", "int8", "--size", "128x192")
    outcome = run("verify", *arguments, "--layers", "--limit", "9", "--json", "-")
    assert outcome.code == 0, outcome.stderr
    data = json.loads(outcome.stdout)
    assert (data["frames"], data["layers"]["frames"]) == (8, 8)
    assert len(data["layers"]["layers"]) == 119
    assert data["layers"]["first_diverging"] is None


def test_without_polygraphy_the_error_is_its_install_line(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "polygraphy", None)
    outcome = run("verify", "a.onnx", "b.onnx", "--layers")
    assert outcome.code == 4
    assert "pip install polygraphy" in outcome.stderr


@pytest.mark.torch
def test_a_backend_without_a_graph_is_refused_before_anything_runs(run: Run) -> None:
    pytest.importorskip("torch", reason="torch not installed")
    pytest.importorskip("polygraphy", reason="polygraphy not installed")
    outcome = run("verify", "torch", "onnxruntime", "--size", "64x96", "--layers")
    assert outcome.code == 2
    assert "onnxruntime or .onnx files" in outcome.stderr
    assert "labels agree" not in outcome.stderr
