from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fasterseg.types import Size
from tests.media import write_clip
from tests.unit.benchmarks.conftest import NAME

pytestmark = pytest.mark.onnx


@pytest.fixture
def script(scripts: None) -> Any:
    return importlib.import_module("end_to_end_profile")


@pytest.fixture
def earlier(scripts: None) -> Any:
    return importlib.import_module("earlier_pipeline")


def test_record_holds_both_routes_of_every_stage(
    script: Any, shop: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip = write_clip(tmp_path / "drive.mp4", 6, Size(72, 128))
    where = tmp_path / "record.json"
    arguments = [str(clip), "--sizes", "64x96,default", "--model", NAME, "--engine", "onnxruntime"]
    options = ["--frames", "4", "--rounds", "1", "--threads", "1", "--json", str(where)]
    assert script.main([*arguments, *options]) == 0
    record = json.loads(where.read_text())
    first, second = record["profiles"]
    assert first["engine_size"] == "64x96"
    assert second["engine_size"] == "64x112"
    for route in ("before", "now"):
        stages = first["stages_ms"][route]
        assert list(stages) == [
            "decode", "fit", "map back", "count", "overlay", "convert", "encode",
        ]  # fmt: skip
        assert first["without_engine_ms"][route] == pytest.approx(sum(stages.values()))
        assert first["end_to_end"][route]["fps"] > 0
    assert {"small", "fast"} <= set(first["h264"])
    assert first["h264"]["fast"]["psnr_db"] > 30
    assert "overlay" in capsys.readouterr().out


def test_both_routes_give_the_same_pixels(earlier: Any) -> None:
    """What is compared has to be the same work."""
    from fasterseg.labels import CAMVID
    from fasterseg.overlay import OverlayStyle
    from fasterseg.preprocess import Geometry

    generator = np.random.default_rng(0)
    image = generator.integers(0, 256, (90, 160, 3), np.uint8)
    mask = generator.integers(0, 11, (40, 64), np.uint8)
    made: dict[str, list[Any]] = {}
    for name in earlier.ROUTES:
        with earlier.route(name) as (encoding, painter):
            geometry = Geometry(Size(90, 160), Size(40, 64))
            back = geometry.inverse(mask)
            drawn = painter(CAMVID, OverlayStyle())(image, back)
            planes = encoding.planes(drawn, None)
            made[name] = [geometry.forward(image), back, drawn.copy(), planes]
    for before, now in zip(made["before"], made["now"], strict=True):
        np.testing.assert_array_equal(before, now)


def test_the_package_is_as_it_was_after_the_earlier_route(earlier: Any) -> None:
    from fasterseg.preprocess import Geometry
    from fasterseg.stream import sinks_video

    inverse, playable = Geometry.inverse, sinks_video.PLAYABLE
    with earlier.route("before"):
        assert Geometry.inverse is not inverse
        assert sinks_video.PLAYABLE is not playable
    assert Geometry.inverse is inverse
    assert sinks_video.PLAYABLE is playable
