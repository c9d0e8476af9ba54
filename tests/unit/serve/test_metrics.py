"""What a Prometheus server reads, read by its own parser."""

from __future__ import annotations

from dataclasses import replace

import pytest

pytest.importorskip("prometheus_client", reason="the extra [serve] is not installed")

from prometheus_client.parser import text_string_to_metric_families

from fasterseg.labels import CAMVID
from fasterseg.serve.board import Board
from fasterseg.serve.figures import Reporter
from fasterseg.serve.metrics import Metrics
from tests.unit.serve.conftest import result_of

COUNTERS = {
    "captured": 12.0, "dropped": 2.0, "duplicated": 1.0, "lost_frames": 4.0, "reconnects": 3.0,
    "seconds_offline": 7.5, "staleness_s": 0.25, "max_staleness_s": 0.5, "unknown": 9.0,
}  # fmt: skip


def samples(metrics: Metrics) -> dict[tuple[str, tuple[str, ...]], float]:
    """(name, values of the labels in the order of their names) -> value, of all samples."""
    families = text_string_to_metric_families(metrics.text().decode())
    return {
        (sample.name, tuple(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


def metrics_of(count: int = 4, name: str = "camera", **options: object) -> Metrics:
    board = Board()
    for index in range(count):
        board.put(result_of(index, **options))  # type: ignore[arg-type]
    return Metrics(Reporter(board, name, counters=lambda: COUNTERS), lambda: 2)


def test_every_metric_has_our_prefix() -> None:
    names = {name for name, _ in samples(metrics_of())}
    assert len(names) > 15
    assert all(name.startswith("fasterseg_") for name in names), names


def test_values_are_those_of_the_run_in_base_units() -> None:
    found = samples(metrics_of(4, engine_ms=20.0))
    assert found["fasterseg_frames_total", ()] == 4
    assert found["fasterseg_stream_up", ()] == 1
    assert found["fasterseg_viewers", ()] == 2
    assert found["fasterseg_stage_seconds", ("0.5", "engine")] == pytest.approx(0.02)
    assert found["fasterseg_stage_busy_seconds_total", ("engine",)] == pytest.approx(0.06)
    shares = [value for (name, _), value in found.items() if name == "fasterseg_class_share"]
    assert sum(shares) == pytest.approx(1.0)


def test_what_the_source_counts_is_told_and_what_nobody_knows_is_not() -> None:
    found = samples(metrics_of())
    assert found["fasterseg_frames_captured_total", ()] == 12
    assert found["fasterseg_frames_dropped_total", ()] == 2
    assert found["fasterseg_frames_lost_total", ()] == 4
    assert found["fasterseg_reconnects_total", ()] == 3
    assert found["fasterseg_offline_seconds_total", ()] == 7.5
    assert found["fasterseg_staleness_max_seconds", ()] == 0.5
    assert not any("unknown" in name for name, _ in found)


def test_metrics_are_there_before_the_first_frame() -> None:
    found = samples(metrics_of(0))
    assert found["fasterseg_stream_up", ()] == 0
    assert ("fasterseg_frame_age_seconds", ()) not in found


def test_hostile_names_stay_values() -> None:
    hostile = 'x"} 1\nfasterseg_fps 99\\'
    labels = replace(CAMVID, classes=(hostile, *CAMVID.classes[1:]))
    found = samples(metrics_of(name=hostile, labels=labels))
    assert ("fasterseg_class_share", (hostile,)) in found
    assert found["fasterseg_fps", ()] != 99
    assert any(name == "fasterseg_info" and hostile in values for name, values in found)
