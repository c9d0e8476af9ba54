from __future__ import annotations

import json
from dataclasses import fields

import numpy as np
import pytest

from fasterseg.errors import UsageError
from fasterseg.types import STAGES, DeviceInfo, Frame, LatencyStats, Size, StageTimes


@pytest.mark.parametrize("text", ["512x1024", "512X1024", " 512 x 1024 "])
def test_size_parses_height_first(text: str) -> None:
    assert Size.parse(text) == Size(height=512, width=1024)


def test_size_prints_as_it_parses() -> None:
    size = Size(360, 480)
    assert str(size) == "360x480"
    assert Size.parse(str(size)) == size
    assert size.pixels == 172800


@pytest.mark.parametrize(
    "text",
    [
        "", "512", "512x", "x512", "0x512", "512x0", "-1x2", "1.5x2", "1x2x3", "512*1024",
        pytest.param("9" * 5000 + "x9", id="digits"),
    ],
)  # fmt: skip
def test_what_is_not_a_size_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(UsageError, match=r"HEIGHTxWIDTH.*512x1024"):
        Size.parse(text)


def test_frame_knows_its_size() -> None:
    frame = Frame(np.zeros((4, 6, 3), np.uint8), index=0, timestamp_s=0.0)
    assert frame.size == Size(height=4, width=6)


def test_stage_names_are_the_fields_of_stage_times() -> None:
    assert tuple(f"{stage}_ms" for stage in STAGES) == tuple(f.name for f in fields(StageTimes))


@pytest.mark.parametrize("count", [1, 2, 3, 10, 101, 997])
def test_latency_statistics_are_those_of_numpy(count: int) -> None:
    samples = np.random.default_rng(count).gamma(2.0, 3.0, count)
    stats = LatencyStats.of(samples.tolist())
    assert stats.count == count
    assert stats.min_ms == samples.min()
    assert stats.mean_ms == pytest.approx(samples.mean(), rel=1e-12)
    assert stats.std_ms == pytest.approx(samples.std(), rel=1e-9, abs=1e-12)
    for name, share in (("p50_ms", 50), ("p90_ms", 90), ("p95_ms", 95), ("p99_ms", 99)):
        assert getattr(stats, name) == pytest.approx(np.percentile(samples, share), rel=1e-12)
    assert stats.cov == pytest.approx(samples.std() / samples.mean(), rel=1e-9, abs=1e-12)


def test_latency_statistics_do_not_depend_on_the_order() -> None:
    assert LatencyStats.of([3.0, 1.0, 2.0]) == LatencyStats.of([1.0, 2.0, 3.0])


def test_latency_statistics_of_nothing_are_an_error() -> None:
    with pytest.raises(ValueError, match="no latency samples"):
        LatencyStats.of([])


def test_device_info_travels_as_json() -> None:
    info = DeviceInfo("id", "name", "x86_64", None, None, "Linux", runtimes={"numpy": "2"})
    data = json.loads(json.dumps(info.to_json()))
    assert data["runtimes"] == {"numpy": "2"}
    assert data["driver"] is None
    assert DeviceInfo(**data) == info
