"""The page of records: all that is known is on it, and nothing is loaded from elsewhere."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from fasterseg.bench.cells import LayerTime, Sharing
from fasterseg.bench.scopes import percentiles
from fasterseg.bench.scores import Score
from fasterseg.errors import ConfigError
from fasterseg.types import LatencyStats, Size
from tests.unit.bench.test_engines import film_of
from tests.unit.bench.test_records import CELL, RECORD

pytest.importorskip("jinja2")
pytest.importorskip("matplotlib")
report = pytest.importorskip("fasterseg.bench.report")

VALUES = percentiles([40.0, 50.0, 60.0])
OURS = replace(
    CELL,
    batch=1,
    percentiles_ms={"host_to_labels": VALUES},
    rounds_ms={"host_to_labels": (1.0, 2.0), "network": (1.0, 1.0)},
    layers=(LayerTime("head <3x3>", "Conv", 2.5), LayerTime("stem", "Relu", 1.5)),
    end_to_end=film_of("reader"),
)
PEER = replace(
    OURS,
    peer="STDC1",
    label_agreement=None,
    rounds_ms={"host_to_labels": (3.0, 6.0)},
    layers=(),
    end_to_end=None,
)
LARGE = replace(OURS, size=Size(1024, 2048), rounds_ms={}, layers=(), end_to_end=None)
WRONG = replace(
    OURS, engine="other", verdict="wrong", label_agreement=0.5, warnings=("WRONG: half", "busy")
)
SCORE = Score("tiny", "onnxruntime", "fp32", "512x1024", 48.96, "camvid test")


class Page(HTMLParser):
    """Tags that are left open, and everything that would be loaded."""

    VOID = frozenset({"meta", "link", "img", "br", "hr", "input"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loads: list[str] = []
        self.headings: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self.VOID:
            self.open.append(tag)
        for name, value in attrs:
            if name in ("src", "srcset", "href", "xlink:href") and not (value or "").startswith(
                "#"
            ):
                self.loads.append(f"{tag} {name}={value}")
        if tag in ("script", "link", "iframe"):
            self.loads.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("h2", "h3"):
            self.headings.append(data)


def page(*cells: Any, scores: tuple[Score, ...] = ()) -> str:
    return str(report.page([replace(RECORD, cells=cells)], scores))


def test_page_is_well_formed_and_loads_nothing() -> None:
    text = page(OURS, PEER, LARGE, scores=(SCORE,))
    found = Page(text)
    assert found.open == []
    assert found.loads == []
    assert "url(http" not in text
    assert "@import" not in text


def test_everything_measured_has_its_place() -> None:
    assert Page(page(OURS, PEER, LARGE, scores=(SCORE,))).headings == [
        "tiny on Box",
        "Ratios, measured in turn",
        "End to end",
        "Latency distributions",
        "FPS by size",
        "End to end, by stage",
        "Time per operator: onnxruntime fp32, 512x1024",
        "Accuracy against latency",
    ]


def test_streams_have_a_table_with_and_without_an_engine_of_their_own() -> None:
    slow = LatencyStats.of([70.0, 99.0])
    own = replace(OURS, streams=2, throughput_fps=33.0, by_stream=(CELL.host_to_labels, slow))
    shared = replace(own, sharing=Sharing(4, 2.5, 9, 0.756, LatencyStats.of([1.5])))
    text = page(own, shared)
    assert Page(text).headings.count("Several streams") == 1
    assert "<td>2</td><td>no</td><td>33.0</td>" in text
    assert "<td>2</td><td>at most 4 in 2.5 ms</td><td>33.0</td>" in text
    assert "<td>84.50</td><td>98.71</td><td>76 %</td><td>9</td><td>1.50</td>" in text


def test_what_was_not_measured_leaves_no_heading() -> None:
    bare = replace(OURS, percentiles_ms={}, rounds_ms={}, layers=(), end_to_end=None, warnings=())
    assert Page(page(bare)).headings == ["tiny on Box"]


def test_ratios_are_against_the_first_cell_of_the_size() -> None:
    (row,) = report.ratios_of((OURS, PEER, LARGE))
    assert (row.cell, row.base, row.ratio.p50) == (PEER, OURS, 3.0)


def test_wrong_engines_stand_out() -> None:
    text = page(OURS, WRONG)
    assert '<td class="bad">WRONG 50.000 %</td>' in text
    assert '<p class="bad">other fp32 512x1024: WRONG: half</p>' in text
    assert "2 warnings" in text


def test_names_are_escaped() -> None:
    text = page(replace(OURS, peer="<b>x</b>"))
    assert "<b>x" not in text
    assert "&lt;3x3&gt;" in text


def test_colours_follow_the_readers_and_the_printer() -> None:
    text = page(OURS)
    assert "prefers-color-scheme: dark" in text
    assert "@media print" in text
    assert "currentColor" in text
    assert report.plots.INK not in text


def test_the_same_record_gives_the_same_page() -> None:
    assert page(OURS, PEER) == page(OURS, PEER)


def test_accuracies_without_a_time_are_named_in_words() -> None:
    other = replace(SCORE, precision="int8")
    text = page(OURS, scores=(SCORE, other))
    assert re.search(r"int8 512x1024: 48.96 % on camvid test, without a time", text)


def test_accuracies_are_read_from_what_the_program_writes(tmp_path: Path) -> None:
    data = {
        "model": "tiny", "engine": "onnxruntime", "precision": "fp32", "size": "512x1024",
        "miou": 48.96, "dataset": "camvid", "split": "test", "more": 1,
    }  # fmt: skip
    (tmp_path / "a.json").write_text(json.dumps(data))
    assert Score.load(tmp_path / "a.json") == SCORE
    huge = json.dumps({**data, "miou": 10**400})
    for text in ("{", "[]", json.dumps({**data, "miou": None}), "{}", huge):
        (tmp_path / "a.json").write_text(text)
        with pytest.raises(ConfigError, match="accuracy --json"):
            Score.load(tmp_path / "a.json")
