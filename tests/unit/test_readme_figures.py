"""Figures in the README are those of the records they name."""

from __future__ import annotations

import json
import re

from tests.shared import ROOT


def test_timings_are_those_of_the_record() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    named = re.search(r"\((benchmarks/results/[^)]+\.json)\)", text)
    assert named is not None
    cells = json.loads((ROOT / named[1]).read_text(encoding="utf-8"))["cells"]
    for cell in cells:
        host, model = cell["host_to_labels"], cell["model"]
        row = (
            f"| {cell['engine']} {cell['precision']}, CPU | {cell['size']} "
            f"| {model['p50_ms']:.1f} | {host['p50_ms']:.1f} | {host['p99_ms']:.1f} "
            f"| {1000 / host['p50_ms']:.1f} | {100 * cell['label_agreement']:.3f} % |"
        )
        assert row in text
    assert len(re.findall(r"^\| \w+ fp\d+, CPU ", text, re.MULTILINE)) == len(cells)


def test_accuracy_is_that_of_the_model_card() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    record = json.loads((ROOT / "fasterseg/zoo/fasterseg-camvid.record.json").read_text())
    miou = next(row["miou"] for row in record["test"] if row["precision"] == "fp32")
    quoted = re.findall(r"(\d+\.\d) %\s+test mIoU", text)
    assert quoted
    assert set(quoted) == {f"{miou:.1f}"}
