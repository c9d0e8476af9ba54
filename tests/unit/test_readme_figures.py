"""Figures in the documents are those of the records they name, or cited."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.shared import ROOT


def test_accuracy_is_that_of_the_model_card() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    record = json.loads((ROOT / "fasterseg/zoo/fasterseg-camvid.record.json").read_text())
    miou = next(row["miou"] for row in record["test"] if row["precision"] == "fp32")
    quoted = re.findall(r"(\d+\.\d) %\s+test mIoU", text)
    assert quoted
    assert set(quoted) == {f"{miou:.1f}"}


def test_figures_of_the_search_are_those_of_its_records() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    section = text.partition("## Search a network for your device")[2].partition("\n## ")[0]
    folder = ROOT / "benchmarks/results/amd-epyc-25-17-2c/search-camvid-cpu"
    trained = json.loads((folder / "train.json").read_text())
    mious = {arm["name"]: arm["miou"] for arm in trained["arms"]}
    random = [miou for name, miou in mious.items() if name.startswith("random-")]
    chosen = json.loads((folder / "search.json").read_text())["targets"][0]
    equal = json.loads((folder / "comparison.json").read_text())["networks"]
    trials = json.loads((folder / "constraint.json").read_text())["trials"]
    shares = [trial["again_ms"] / trial["target_ms"] for trial in trials]
    gains = {one["to"]: one for one in trained["differences"]}
    quoted = [
        f"| found | {chosen['measured_ms']:.1f} ms | {mious['searched']:.1f} % |",
        f"{mious['fasterseg-camvid']:.1f} %",
        f"{min(random):.1f} to {max(random):.1f} %",
        f"{min(e['measured_ms'] for e in equal):.1f} to {max(e['measured_ms'] for e in equal):.1f}",
        f"tau {trained['fidelity']['tau']:.2f}",
        f"took {min(shares):.2f} to {max(shares):.2f} of the target",
        *(
            f"{one['mean']:+.1f} ({one['low']:+.1f} to {one['high']:+.1f})"
            for one in (gains["fasterseg-camvid"], gains["all random"])
        ),
    ]
    flat = " ".join(section.split())
    assert [figure for figure in quoted if figure not in flat] == []
    assert len(trials) == 20
    assert not any(trial["faults"] for trial in trials)


def test_figures_of_smoothing_are_those_of_its_record() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    section = text.partition("### Outputs")[2].partition("\n### ")[0]
    record = ROOT / "benchmarks/comparisons/amd-epyc-25-17-2c/2026-11-23-flicker.json"
    assert record.relative_to(ROOT).as_posix() in section
    rows = [row for row in json.loads(record.read_text())["rows"] if row["variant"] == "default"]
    kinds = {
        "three rendered drives": [row for row in rows if row["clip"].startswith("street")],
        "rendered, standing": [row for row in rows if row["clip"].startswith("standing")],
        "CamVid, second half": [row for row in rows if "0016E5" in row["clip"]],
    }
    shown = {line.split("|")[1]: line for line in section.splitlines() if line.startswith("|")}
    for kind, taken in kinds.items():
        (line,) = (line for name, line in shown.items() if kind in name)
        told = [float(number) for number in re.findall(r"[+-]?\d+\.\d", line)]
        assert taken, kind
        figures = [
            100 * row[what][side]
            for what in ("flicker", "unexplained")
            for side in ("without", "with")
            for row in (
                min(taken, key=lambda one: one[what][side]),
                max(taken, key=lambda one: one[what][side]),
            )[: 1 if len(taken) == 1 else 2]
        ]
        gains = [row["miou"]["difference"] for row in taken]
        figures += sorted({min(gains), max(gains)})
        if len(taken) == 1:
            figures += taken[0]["miou_interval"]
        assert told == pytest.approx(figures, abs=0.051), kind


def test_figures_of_the_soak_are_those_of_its_record() -> None:
    text = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    (name,) = re.findall(r"\(([^()]*/soak/[^()]*\.json)\)", text)
    record = json.loads((ROOT / name).read_text())
    live = record["facts"]["live"]
    quoted = [
        f"{live['captured']:,} frames captured = {live['processed']:,} processed + "
        f"{live['dropped']:,} dropped + {live['passed_over']:,} passed over + "
        f"{live['unfinished']} unfinished",
        f"memory {record['trends']['rss_mib']['first']:.1f} MiB in the first third and "
        f"{record['trends']['rss_mib']['last']:.1f} in the last",
        f"Left alone for {record['minutes']:g} minutes",
    ]
    assert [figure for figure in quoted if figure not in text] == []
    assert all(check["passed"] for check in record["checks"])


# --- frame rates near the word TensorRT ---------------------------------------------------------

CITED: Final = {
    "5.70": "the original's 667 latencies",
    "163.9": "https://openreview.net/forum?id=BJgqQ6NYvB",
}
"""Figure that may stand near the word TensorRT -> whose it is, in words of the same paragraph."""

TENSORRT: Final = re.compile(r"tensor\s?rt|trtexec", re.IGNORECASE)
NUMBER: Final = r"(\d+(?:[.,]\d+)*)"
UNIT: Final = r"(?:fps|ms|us|µs|(?:milli|micro)seconds?|frames?(?:/| per | a )s(?:econd)?)"
AFTER: Final = re.compile(rf"{NUMBER}\s*{UNIT}\b", re.IGNORECASE)
BEFORE: Final = re.compile(rf"\b{UNIT}\W{{1,4}}{NUMBER}", re.IGNORECASE)
IN_HEADER: Final = re.compile(rf"\b{UNIT}\b", re.IGNORECASE)
RECORD: Final = re.compile(r"benchmarks/results/[\w./-]+\.json")


def blocks(text: str) -> Iterator[str]:
    """Paragraphs, list items and lines of code; each row of a table with the table's header."""
    paragraph: list[str] = []
    header, in_code = "", False
    for line in [*text.splitlines(), ""]:
        is_fence = line.lstrip().startswith("```")
        is_row = line.startswith("|") and not in_code
        starts_anew = is_row or in_code or is_fence or re.match(r"\s*([-*#]|\d+\.)\s", line)
        if (starts_anew or not line.strip()) and paragraph:
            yield " ".join(paragraph)
            paragraph = []
        if is_row:
            header = header or line
            yield f"{header}\n{line}"
        else:
            header = ""
            paragraph += [line.strip()] if line.strip() else []
        in_code ^= is_fence
    if paragraph:
        yield " ".join(paragraph)


def rates(block: str) -> list[str]:
    """Figures of speed in a block that names TensorRT."""
    if not TENSORRT.search(block):
        return []
    found = [*AFTER.findall(block), *BEFORE.findall(block)]
    header, newline, row = block.partition("\n")
    if newline:
        columns = zip(header.split("|"), row.split("|"), strict=False)
        timed = (cell for title, cell in columns if IN_HEADER.search(title))
        found += [number for cell in timed for number in re.findall(NUMBER, cell)]
    return found


def recorded(block: str) -> set[str]:
    """Figures of TensorRT cells in the records that a block links to, as they may be rounded."""
    cells = [
        cell
        for name in RECORD.findall(block)
        for cell in json.loads((ROOT / name).read_text(encoding="utf-8"))["cells"]
        if cell["engine"].startswith("tensorrt")
    ]
    values = [
        value
        for cell in cells
        for group in (cell, cell.get("model") or {}, cell.get("host_to_labels") or {})
        for value in group.values()
        if isinstance(value, int | float)
    ]
    return {f"{value:.{digits}f}" for value in values for digits in range(4)}


def unsupported(text: str) -> list[str]:
    """Figures of speed near the word TensorRT that no record and no citation stands behind."""
    return [
        f"{figure}: {block}"
        for block in blocks(text)
        for figure in rates(block)
        if figure not in recorded(block) and CITED.get(figure, block + "!") not in block
    ]


DOCUMENTS: Final = sorted(
    path
    for pattern in ("*.md", "*/*.md", "*/*/*.md", "fasterseg/zoo/*.md")
    for path in ROOT.glob(pattern)
    if not any(part.startswith(".") or part == "build" for part in path.relative_to(ROOT).parts)
)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_speed_of_tensorrt_without_record_or_citation(path: Path) -> None:
    assert unsupported(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "text",
    [
        "With TensorRT it reaches 300 FPS.",
        "The plan runs in\n4.2 ms under\nTensorRT.",
        "- TensorRT-RTX: 2 milliseconds\n",
        "- TensorRT gives FPS: 163.9",
        "| engine | FPS |\n| --- | --- |\n| tensorrt | 163.9 |",
        "| size | TensorRT p50 ms |\n| --- | --- |\n| 512x1024 | 1.9 |",
        "```\ntrtexec: 512 frames per second\n```",
        "TensorRT: 163.9 FPS, says the paper.",
        "TensorRT: 80.5 ms (benchmarks/results/amd-epyc-25-17-2c/2026-11-22-engines.json)",
    ],
)
def test_a_speed_of_tensorrt_out_of_thin_air_is_found(text: str) -> None:
    assert unsupported(text)


@pytest.mark.parametrize(
    "text",
    [
        "TensorRT 10.16 and 11.4 build for sm_90.",
        "ONNX Runtime takes 83.2 ms.\n\nTensorRT was not measured.",
        "| engine | FPS |\n| --- | --- |\n| onnxruntime | 12.0 |\n\nTensorRT is next.",
        "TensorRT: 163.9 FPS ([paper](https://openreview.net/forum?id=BJgqQ6NYvB), GTX 1080 Ti).",
        "`--max-fps 10` limits a camera.",
    ],
)
def test_other_figures_and_cited_ones_pass(text: str) -> None:
    assert unsupported(text) == []


def test_figures_of_a_tensorrt_record_may_be_quoted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell = {"engine": "tensorrt", "model": {"p50_ms": 0.4567}, "fps_model": 2189.6212}
    folder = tmp_path / "benchmarks" / "results" / "box"
    folder.mkdir(parents=True)
    (folder / "a.json").write_text(json.dumps({"cells": [cell]}), encoding="utf-8")
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    quoted = "TensorRT: 0.46 ms, 2189.6 FPS (benchmarks/results/box/a.json)"
    assert unsupported(quoted) == []
    assert len(unsupported(quoted.replace("0.46", "0.45"))) == 1
