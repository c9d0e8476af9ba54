from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from fasterseg.bench.cells import Sharing
from fasterseg.bench.readme import markdown, refresh, refreshed
from fasterseg.errors import ConfigError, UsageError
from fasterseg.types import LatencyStats
from tests.shared import ROOT
from tests.unit.bench.test_records import CELL, RECORD

PLAIN = replace(
    CELL, batch=1, warnings=(), host_to_labels=LatencyStats.of([80.0]), label_agreement=0.9999999
)


def test_a_row_says_what_was_measured() -> None:
    text = markdown(replace(RECORD, cells=(PLAIN,)), "a.json")
    row = "| onnxruntime fp32, CPU | 512x1024 | 40.0 | 80.0 | 80.0 | 12.5 | 99.999 % |\n"
    assert row in text
    assert (
        "onnxruntime 1.31.1, model `tiny`, protocol `full`, 2026-11-22: [record](a.json)." in text
    )


def test_streams_on_one_engine_are_told_apart() -> None:
    shared = replace(
        PLAIN, streams=4, throughput_fps=50.0,
        sharing=Sharing(4, 2.5, 9, 0.75, LatencyStats.of([1.5])),
    )  # fmt: skip
    text = markdown(replace(RECORD, cells=(shared,)), "a.json")
    row = "| onnxruntime fp32, 4 streams, one engine, at most 4 in 2.5 ms, CPU | 512x1024 |"
    assert row in text
    assert "| 50.0 |" in text


def test_wrong_engines_and_warnings_are_told() -> None:
    wrong = replace(PLAIN, verdict="wrong", label_agreement=0.5, model=None, warnings=("busy",))
    text = markdown(replace(RECORD, cells=(wrong,)), "a.json")
    assert "| - | 80.0 | 80.0 | 12.5 | WRONG, 50.000 % |" in text
    assert "warns of its measurement" in text


def test_tables_are_written_between_their_marks_only(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(replace(RECORD, cells=(PLAIN,)).to_json())
    file = tmp_path / "README.md"
    file.write_text("before\n<!-- bench: a.json -->\nold\n<!-- /bench -->\nafter\n")
    assert refresh(file) == 1
    text = file.read_text()
    assert text.startswith("before\n<!-- bench: a.json -->\n| engine |")
    assert text.endswith("<!-- /bench -->\nafter\n")
    assert "old" not in text
    refresh(file)
    assert file.read_text() == text


def test_a_file_without_marks_or_with_an_absent_record_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "README.md"
    file.write_text("text")
    with pytest.raises(UsageError, match="<!-- bench"):
        refresh(file)
    file.write_text("<!-- bench: gone.json -->\n<!-- /bench -->")
    with pytest.raises(ConfigError, match=r"gone\.json"):
        refresh(file)
    with pytest.raises(ConfigError, match="cannot read"):
        refresh(tmp_path / "absent.md")


@pytest.mark.parametrize("name", ["README.md", "benchmarks/README.md"])
def test_tables_of_the_project_are_those_of_their_records(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    assert refreshed(text, (ROOT / name).parent)[0] == text
