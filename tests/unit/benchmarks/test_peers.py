"""The peers are the networks of their papers, and run at any size."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from fasterseg import load
from fasterseg.bench.records import BenchRecord
from fasterseg.deploy.export import Wrapping, export_foreign
from fasterseg.graph.foreign import Contract, fit
from fasterseg.graph.wrapping import wrap
from fasterseg.labels import CITYSCAPES
from fasterseg.preprocess import normalize
from fasterseg.types import Size
from tests.shared import ROOT
from tests.unit.bench.test_records import CELL, RECORD
from tests.unit.graph.test_foreign import enlarged
from tests.unit.graph.test_foreign import run as run_onnx

pytestmark = pytest.mark.onnx


@pytest.fixture(scope="module", autouse=True)
def peers(scripts: None) -> Iterator[None]:
    """The folder of the peers on the path, as when one of them is run."""
    sys.path.insert(0, str(ROOT / "benchmarks" / "peers"))
    yield
    sys.path.remove(str(ROOT / "benchmarks" / "peers"))


@pytest.mark.parametrize("name", ["stdc", "ddrnet"])
def test_parameters_and_multiply_adds_are_the_papers(name: str) -> None:
    importlib.import_module(name).check()


def test_a_network_off_by_more_than_a_hundredth_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stdc = importlib.import_module("stdc")
    monkeypatch.setattr(stdc, "STAGES", ((256, 2), (512, 2), (1024, 3)))
    with pytest.raises(AssertionError, match="parameters"):
        stdc.check()


@pytest.mark.parametrize(("name", "gmacs"), [("stdc", 67.45), ("ddrnet", 36.28)])
def test_segmenters_cost_what_their_figures_are_quoted_with(name: str, gmacs: float) -> None:
    network, _ = importlib.import_module(name).segmenter()
    assert network.macs / 1e9 == pytest.approx(gmacs, abs=0.01)


@pytest.mark.parametrize("name", ["stdc", "ddrnet"])
@pytest.mark.parametrize("size", [Size(64, 128), Size(72, 104)])
def test_peers_segment_frames_of_any_size(name: str, size: Size) -> None:
    _, model = importlib.import_module(name).segmenter()
    network = fit(model, size)
    assert (network.classes, network.scale) == (19, 8)
    session = onnxruntime.InferenceSession(
        wrap(network).SerializeToString(), providers=["CPUExecutionProvider"]
    )
    frames = np.random.default_rng(0).integers(0, 256, (1, *size, 3), np.uint8)
    labels = session.run(None, {"frames": frames})[0]
    assert labels.shape == (1, *size)
    assert len(np.unique(labels)) > 1


@pytest.mark.parametrize("name", ["stdc", "ddrnet"])
def test_wrapped_peers_label_as_their_own_logits_say(name: str, tmp_path: Path) -> None:
    size = Size(72, 104)
    _, model = importlib.import_module(name).segmenter()
    onnx.save(model, tmp_path / "net.onnx")
    wish = Wrapping(tmp_path / "net.onnx", CITYSCAPES, Contract(scale=8), size)
    file, spec = export_foreign(wish, tmp_path / "wrapped.onnx")
    assert (spec.name, spec.labels, spec.genotype) == ("net", CITYSCAPES, None)
    frame = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    logits = run_onnx(model, "picture", normalize(frame[None]))
    with load(str(file)) as segmenter:
        mask = segmenter(frame).mask
    assert np.mean(mask == enlarged(logits, 8)[0, : size.height, : size.width]) > 0.9999


def record(**rounds: tuple[float, ...]) -> BenchRecord:
    """FasterSeg at 1024x2048 in 100 ms a round, and STDC1-Seg at 512x1024."""

    def cell(peer: str | None, size: str, ms: tuple[float, ...]) -> Any:
        data = {**CELL.to_json(), "peer": peer, "size": size, "rounds_ms": {"host_to_labels": ms}}
        return type(CELL).from_json(data, "x")

    ours = cell(None, "1024x2048", (100.0, 100.0))
    cells = [cell("STDC1-Seg", size.replace("_", ""), ms) for size, ms in rounds.items()]
    return type(RECORD)(**{**_fields(), "cells": (ours, *cells)})


def _fields() -> dict[str, Any]:
    return {name: getattr(RECORD, name) for name in RECORD.__dataclass_fields__}


@pytest.mark.parametrize(
    ("ms", "words"),
    [
        ((60.0, 70.0), "is FASTER than FasterSeg at 1024x2048"),
        ((120.0, 130.0), "is slower than"),
        ((90.0, 130.0), "cannot be told apart"),
    ],
)
def test_who_wins_at_equal_accuracy_is_said_in_words(ms: tuple[float, ...], words: str) -> None:
    compare_peers = importlib.import_module("compare_peers")
    (line,) = compare_peers.verdicts(record(**{"512x1024": ms}))
    assert "STDC1-Seg50 at 512x1024 (mIoU 72.2 val, 71.9 test)" in line
    assert words in line


def test_ratios_at_the_same_input_come_first() -> None:
    compare_peers = importlib.import_module("compare_peers")
    (line,) = compare_peers.verdicts(record(**{"1024x2048": (250.0, 250.0)}))
    assert line.startswith("At 1024x2048: STDC1-Seg is slower than FasterSeg: 2.50 times")
