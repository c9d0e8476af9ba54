from __future__ import annotations

import pytest

from fasterseg.stream.tally import Tally
from fasterseg.types import STAGES, Size, StageTimes
from tests.unit.stream.conftest import result_of, solid


def test_shares_are_of_all_pixels_of_all_frames() -> None:
    tally = Tally()
    assert tally.add(result_of(solid((0, 0, 255), Size(10, 10))))[4] == 100
    tally.add(result_of(solid((0, 0, 0), Size(10, 30))))
    shares = tally.shares()
    assert shares["Pavement"] == 0.25
    assert shares["Sky"] == 0.75
    assert tally.frames == 2


def test_ignored_pixels_belong_to_no_class() -> None:
    result = result_of(solid((0, 0, 0), Size(10, 10)))
    result.mask[:5] = 255
    tally = Tally()
    tally.add(result)
    assert sum(tally.shares().values()) == 0.5


def test_latency_has_every_stage() -> None:
    tally = Tally()
    for index in range(5):
        result = result_of(solid((0, 0, 0)))
        result.times = StageTimes(1, 2, 10 * index, 4, 5)
        tally.add(result)
    latency = tally.latency()
    assert tuple(latency) == STAGES
    assert latency["engine"].p50_ms == pytest.approx(20)
    assert latency["write"].count == 5


def test_a_run_of_weeks_keeps_times_that_are_spread_evenly(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("fasterseg.stream.tally.MOST_SAMPLES", 8)
    tally, result = Tally(), result_of(solid((0, 0, 0), Size(2, 2)))
    seen = []
    for index in range(100):
        result.times = StageTimes(index, 2, 3, 4, 5)
        tally.add(result)
        decode = tally.latency()["decode"]
        assert decode.count <= 8
        assert decode.p50_ms == pytest.approx(index / 2, abs=16 if index > 8 else 0.01)
        seen.append(decode.count)
    assert (tally.frames, seen[7], seen[8]) == (100, 8, 5)
    # Every sixteenth: 0, 16, ... 96.
    assert (decode.count, decode.p50_ms, decode.min_ms) == (7, 48, 0)


def test_nothing_is_known_before_the_first_result() -> None:
    tally = Tally()
    assert (tally.frames, tally.shares(), tally.latency()) == (0, {}, {})
