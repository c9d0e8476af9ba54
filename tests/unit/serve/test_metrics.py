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
    return Metrics(
        [Reporter(board, "front", name, counters=lambda: COUNTERS)], lambda: {"front": 2}
    )


def test_every_metric_has_our_prefix() -> None:
    names = {name for name, _ in samples(metrics_of())}
    assert len(names) > 15
    assert all(name.startswith("fasterseg_") for name in names), names


def test_values_are_those_of_the_run_in_base_units() -> None:
    found = samples(metrics_of(4, engine_ms=20.0))
    assert found["fasterseg_frames_total", ("front",)] == 4
    assert found["fasterseg_stream_up", ("front",)] == 1
    assert found["fasterseg_viewers", ("front",)] == 2
    assert found["fasterseg_stage_seconds", ("0.5", "engine", "front")] == pytest.approx(0.02)
    assert found["fasterseg_stage_busy_seconds_total", ("engine", "front")] == pytest.approx(0.06)
    shares = [value for (name, _), value in found.items() if name == "fasterseg_class_share"]
    assert sum(shares) == pytest.approx(1.0)


def test_what_the_source_counts_is_told_and_what_nobody_knows_is_not() -> None:
    found = samples(metrics_of())
    assert found["fasterseg_frames_captured_total", ("front",)] == 12
    assert found["fasterseg_frames_dropped_total", ("front",)] == 2
    assert found["fasterseg_frames_lost_total", ("front",)] == 4
    assert found["fasterseg_reconnects_total", ("front",)] == 3
    assert found["fasterseg_offline_seconds_total", ("front",)] == 7.5
    assert found["fasterseg_staleness_max_seconds", ("front",)] == 0.5
    assert not any("unknown" in name for name, _ in found)


def test_metrics_are_there_before_the_first_frame() -> None:
    found = samples(metrics_of(0))
    assert found["fasterseg_stream_up", ("front",)] == 0
    assert ("fasterseg_frame_age_seconds", ("front",)) not in found


def test_hostile_names_stay_values() -> None:
    hostile = 'x"} 1\nfasterseg_fps 99\\'
    labels = replace(CAMVID, classes=(hostile, *CAMVID.classes[1:]))
    found = samples(metrics_of(name=hostile, labels=labels))
    assert ("fasterseg_class_share", (hostile, "front")) in found
    assert found["fasterseg_fps", ("front",)] != 99
    assert any(name == "fasterseg_info" and hostile in values for name, values in found)


def test_streams_are_told_apart_by_their_label_in_families_of_the_same_names() -> None:
    front, back = Board(), Board()
    for index in range(3):
        front.put(result_of(index))
    reporters = [
        Reporter(front, "front", "rtsp://one/stream", counters=lambda: {"dropped": 5.0}),
        Reporter(back, "back", "drive.mp4", counters=lambda: {"lost_frames": 1.0}),
    ]
    both = samples(Metrics(reporters, lambda: {"front": 1, "back": 0}))
    assert both["fasterseg_frames_total", ("front",)] == 3
    assert both["fasterseg_frames_total", ("back",)] == 0
    assert both["fasterseg_frames_dropped_total", ("front",)] == 5
    assert ("fasterseg_frames_dropped_total", ("back",)) not in both
    assert both["fasterseg_frames_lost_total", ("back",)] == 1
    alone = samples(Metrics(reporters[:1], lambda: {"front": 1}))
    assert {name for name, _ in alone} <= {name for name, _ in both}


def test_no_sample_of_a_stream_lacks_its_label_and_no_family_comes_twice() -> None:
    front = Board()
    front.put(result_of(0))
    reporters = [Reporter(front, name, name) for name in ("front", "back")]
    text = Metrics(reporters, lambda: {"front": 1, "back": 0}).text().decode()
    families = list(text_string_to_metric_families(text))
    assert len({family.name for family in families}) == len(families)
    of_streams = [f for f in families if not f.name.startswith("fasterseg_process_")]
    assert len(of_streams) > 8
    for family in of_streams:
        assert all("stream" in sample.labels for sample in family.samples), family.name
