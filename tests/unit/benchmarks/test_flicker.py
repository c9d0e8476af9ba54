"""The evidence of `--smooth`: its figures are what they say."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fasterseg.stream.smoothing import SmoothOptions
from tests.unit.benchmarks.conftest import NAME


@pytest.fixture
def script(scripts: None) -> Any:
    return importlib.import_module("flicker")


@pytest.fixture
def variants(scripts: None) -> Any:
    return importlib.import_module("flicker_variants")


@pytest.mark.onnx
def test_record_holds_every_variant_of_every_clip(
    script: Any, shop: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = tmp_path / "record.json"
    clips = ["--streets", "0", "--standing", "1", "--limit", "9", "--frame-size", "72x128"]
    engine = ["--model", NAME, "--engine", "onnxruntime", "--size", "64x96"]
    compared = ["--variant", "follow=none,frames=3", "--variant", "average=0.9"]
    assert script.main([*clips, *engine, *compared, "-o", str(where)]) in (0, 5)
    rows = json.loads(where.read_text())["rows"]
    assert [(row["clip"], row["variant"]) for row in rows] == [
        (clip, variant)
        for clip in ("street 0", "standing 1")
        for variant in ("default", "follow=none,frames=3", "average=0.9")
    ]
    for row in rows:
        assert row["miou"]["difference"] == row["miou"]["with"] - row["miou"]["without"]
        assert row["cpu_ms"]["p50"] > 0
    assert len(capsys.readouterr().out.splitlines()) == len(rows)


def test_delay_counts_frames_from_the_first_right_label_to_the_smoothed_one(script: Any) -> None:
    truth = np.zeros((20, 2, 2), np.uint8)
    truth[6:] = 3
    raw = np.zeros_like(truth)
    raw[7:] = 3
    smooth = np.zeros_like(truth)
    smooth[10:, 0] = 3
    found = script.delay(truth, raw, smooth, 11)
    assert found == {"changes": 4, "frames": 3.0, "lost": 0.5}


def test_labels_that_only_smoothing_gets_right_or_wrong_are_counted_apart(script: Any) -> None:
    truth = np.full((12, 4, 4), 2, np.uint8)
    truth[:, 3] = 255
    raw, smooth = truth.copy(), truth.copy()
    raw[:, 0, :3] = 1
    smooth[:, 1, 0] = 1
    found = script.against_truth(truth, raw, smooth, 11)
    assert found["mended"] == pytest.approx(3 / 12)
    assert found["spoilt"] == pytest.approx(1 / 12)
    assert found["unexplained"] == {"without": 0.0, "with": 0.0}
    assert found["miou"]["difference"] > 0
    low, high = found["miou_interval"]
    assert 0 < low <= found["miou"]["difference"] + 1e-9
    assert found["miou"]["difference"] <= high + 1e-9


def test_variants_are_read_and_wrong_ones_refused(variants: Any) -> None:
    assert variants.variant("")()._options == SmoothOptions()
    made = variants.variant("frames=3,tolerance=2.5,follow=none")()
    assert made._options == SmoothOptions(frames=3, tolerance=2.5)
    with pytest.raises(SystemExit, match="colour is none of frames"):
        variants.variant("colour=red")


@pytest.mark.parametrize("name", ["none", "shift", "plane", "flow"])
def test_each_way_to_follow_finds_a_shift_or_leaves_it(variants: Any, name: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (30, 50), np.uint8)
    wide = np.kron(noise, np.ones((4, 4), np.uint8))
    before, now = wide[:96, :160].copy(), wide[:96, 3:163].copy()
    flow = variants.FOLLOW[name]()(before, now)
    found = np.median(flow.reshape(-1, 2), axis=0)
    assert found == pytest.approx([0, 0] if name == "none" else [3, 0], abs=0.5)
