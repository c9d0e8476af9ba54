"""`benchmarks/streams.py`: its miniature, and the table of the README that it printed."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pytest

from tests.shared import ROOT


@pytest.fixture
def script(scripts: None) -> Any:
    return importlib.import_module("streams")


def test_table_of_the_readme_is_what_its_record_gives(
    script: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    record = ROOT / "benchmarks/comparisons/amd-epyc-25-17-2c/2026-11-23-streams.json"
    facts = json.loads(record.read_text(encoding="utf-8"))
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    script.show(facts["rows"], facts["ratios"])
    table = capsys.readouterr().out.partition("\n\n")[0]
    assert record.relative_to(ROOT).as_posix() in readme
    assert table in readme
    four = [ratio for ratio in facts["ratios"] if ratio["streams"] == 4]
    assert all(round(ratio["memory"], 1) == 0.4 for ratio in four)
    assert "0.4 of the memory" in readme
    rates = sorted(round(ratio["fps"], 1) for ratio in four)
    assert f"{rates[0]} to {rates[-1]} of the\nrate" in readme


@pytest.mark.onnx
def test_a_miniature_measures_both_ways_of_both_inputs(
    script: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = tmp_path / "record.json"
    arguments = ["--streams", "1,2", "--seconds", "1.5", "--rounds", "1", "--clip-size", "64x96"]
    arguments += ["--size", "64x96", "--engine", "onnxruntime", "-o", str(record)]
    assert script.main(arguments) == 0
    rows = json.loads(record.read_text())["rows"]
    assert {(row["source"], row["way"], row["streams"]) for row in rows} == {
        (source, way, streams)
        for source in ("cameras", "files")
        for way in ("shared", "processes")
        for streams in (1, 2)
    }
    for row in rows:
        assert len(row["fps_by_stream"]) == row["streams"]
        assert row["fps"] == pytest.approx(sum(row["fps_by_stream"]), rel=0.1)
        assert (row["staleness"] is not None) == (row["source"] == "cameras")
    assert "one process over a process each" in capsys.readouterr().out
