"""A soak's judgement, on series and accounts that are made up."""

from __future__ import annotations

import importlib
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fasterseg.types import Size
from tests.media import write_clip

HALF_HOUR_S = np.arange(0.0, 1800.0, 5.0)
LIVE = {"captured": 100, "processed": 60, "dropped": 30, "passed_over": 8, "unfinished": 2}


@pytest.fixture(scope="module")
def judge(scripts: None) -> Any:
    return importlib.import_module("soak_judge")


@pytest.fixture(scope="module")
def watch(scripts: None) -> Any:
    pytest.importorskip("websockets", reason="the extra [serve] is not installed")
    return importlib.import_module("soak_watch")


def noise(scale: float) -> Any:
    return np.random.default_rng(0).normal(0.0, scale, len(HALF_HOUR_S))


def memory_is_flat(judge: Any, values: Any, times_s: Any = HALF_HOUR_S) -> bool:
    found = judge.trend(times_s.tolist(), values.tolist())
    return bool(judge.memory_check("rss_mib", found).passed)


def facts(**changed: Any) -> dict[str, Any]:
    return {"live": {**LIVE, "reconnects": 5, "seconds_offline": 20.0, **changed}}


def failed(checks: Any) -> list[str]:
    return [check.name for check in checks if not check.passed]


def test_slope_is_that_of_most_of_the_samples(judge: Any) -> None:
    times = np.arange(100.0)
    values = 3.0 + 0.5 * times
    values[::7] += 1000.0
    slope, low, high = judge.theil_sen(times.tolist(), values.tolist())
    assert slope == pytest.approx(0.5, abs=0.05)
    assert low <= 0.5 <= high


def test_interval_of_the_slope_holds_the_true_one_as_often_as_it_says(judge: Any) -> None:
    times = np.arange(40.0)
    random = np.random.default_rng(1)
    held = 0
    for _ in range(200):
        _, low, high = judge.theil_sen(times, 0.1 * times + random.normal(0.0, 1.0, 40))
        held += low <= 0.1 <= high
    assert 0.9 <= held / 200 <= 0.99


def test_one_sample_has_no_slope(judge: Any) -> None:
    with pytest.raises(ValueError, match="1 samples have no slope"):
        judge.theil_sen([1.0], [1.0])


def test_steady_memory_with_noise_is_flat(judge: Any) -> None:
    assert memory_is_flat(judge, 200.0 + noise(1.5))


def test_growth_during_the_warm_up_is_none(judge: Any) -> None:
    warming = 200.0 + 80.0 * np.minimum(1.0, HALF_HOUR_S / 590.0)
    assert memory_is_flat(judge, warming + noise(0.5))


def test_a_buffer_made_once_is_no_leak_and_a_large_one_is_told(judge: Any) -> None:
    step = (HALF_HOUR_S > 1190.0).astype(float)
    assert memory_is_flat(judge, 200.0 + 0.5 * step)
    assert not memory_is_flat(judge, 200.0 + 30.0 * step)


@pytest.mark.parametrize("per_hour", [12.0, 60.0])
def test_a_leak_is_found_under_noise(judge: Any, per_hour: float) -> None:
    assert not memory_is_flat(judge, 200.0 + per_hour * HALF_HOUR_S / 3600 + noise(0.5))


def test_peaks_of_a_few_moments_are_no_leak(judge: Any) -> None:
    values = 200.0 + noise(0.5)
    values[-60::12] += 300.0
    assert memory_is_flat(judge, values)


def test_a_run_too_short_for_a_slope_is_judged_by_its_growth(judge: Any) -> None:
    times = np.arange(0.0, 120.0, 5.0)
    assert memory_is_flat(judge, 200.0 + times / 60, times)
    assert not memory_is_flat(judge, 200.0 + 6 * times / 60, times)


def test_trend_says_when_there_is_too_little(judge: Any) -> None:
    with pytest.raises(ValueError, match="2 samples after the warm-up"):
        judge.trend([0.0, 5.0, 10.0], [1.0, 1.0, 1.0])
    checks, trends = judge.series_checks([0.0, 5.0], {"rss_mib": [1.0, 1.0], "fps": [9.0, 9.0]})
    assert failed(checks) == ["rss_mib flat"]
    assert trends == {}


def test_a_thread_for_each_reconnect_is_found(judge: Any) -> None:
    threads = 16.0 + 2 * (HALF_HOUR_S // 300)
    series = {"threads": threads.tolist(), "fd_socket": [6.0] * len(HALF_HOUR_S)}
    checks, trends = judge.series_checks(HALF_HOUR_S.tolist(), series)
    assert failed(checks) == ["threads flat"]
    assert trends["threads"]["growth"] > 0


def test_descriptors_that_come_and_go_are_flat(judge: Any) -> None:
    files = np.where(HALF_HOUR_S % 300 < 10, 5.0, 6.0)
    checks, _ = judge.series_checks(HALF_HOUR_S.tolist(), {"fd_socket": files.tolist()})
    assert failed(checks) == []


def test_rates_are_told_and_not_judged(judge: Any) -> None:
    checks, trends = judge.series_checks(HALF_HOUR_S.tolist(), {"fps": HALF_HOUR_S.tolist()})
    assert checks == []
    assert trends["fps"]["per_hour"] == pytest.approx(3600.0)


def test_samples_without_a_value_are_left_out(judge: Any) -> None:
    values: list[float | None] = [100.0] * len(HALF_HOUR_S)
    values[200] = None
    assert judge.trend(HALF_HOUR_S.tolist(), values).growth == 0


def test_an_account_that_adds_up_passes(judge: Any) -> None:
    assert failed(judge.account_checks(facts(), kills=5)) == []


@pytest.mark.parametrize(
    ("changed", "name"),
    [
        ({"captured": 101}, "captured frames add up"),
        ({"passed_over": -2, "unfinished": 12}, "captured frames add up"),
        ({"dropped": 0, "passed_over": 38}, "the engine was always busy"),
        ({"processed": 22, "unfinished": 40}, "little was unfinished"),
        ({"reconnects": 4}, "came back each time"),
    ],
)
def test_an_account_with_a_fault_is_told(judge: Any, changed: dict[str, Any], name: str) -> None:
    assert failed(judge.account_checks(facts(**changed), kills=5)) == [name]


def test_outputs_hold_the_frames_of_the_account(judge: Any) -> None:
    held = {"video": 60, "JSON lines": 59, "statistics": None}
    expected = ["JSON lines: every frame is there", "statistics: every frame is there"]
    assert failed(judge.output_checks(60, held)) == expected


@pytest.mark.parametrize("count", [1, 399, 400, 401, 5000])
def test_series_are_thinned_evenly_and_keep_their_end(judge: Any, count: int) -> None:
    left = judge.thinned(list(range(count)), 400)
    assert len(left) <= 400
    assert left[-1] == count - 1
    assert len(set(np.diff(left))) <= 1


def test_what_proc_says_of_this_process_is_plausible(watch: Any) -> None:
    before = watch.sample_of(os.getpid())
    with socket.socket():
        during = watch.sample_of(os.getpid())
    assert during["fd_socket"] == before["fd_socket"] + 1
    assert 0 < before["pss_mib"] <= before["rss_mib"]
    assert 0 < before["anonymous_mib"] < before["rss_mib"]
    assert before["threads"] >= 1
    assert before["cpu_s"] > 0


@pytest.mark.parametrize(
    ("link", "kind"),
    [
        ("socket:[12]", "socket"),
        ("pipe:[12]", "pipe"),
        ("anon_inode:[eventpoll]", "eventpoll"),
        ("anon_inode:[eventfd]", "eventfd"),
        ("/dev/null", "file"),
        ("/a/socket:x", "file"),
    ],
)
def test_descriptors_have_kinds(watch: Any, link: str, kind: str) -> None:
    assert watch.kind_of(link) == kind


def test_a_process_that_outlives_its_session_is_seen(watch: Any) -> None:
    command = [sys.executable, "-c", "import sys; sys.stdin.read()"]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
    assert watch.session_members(child.pid) == [child.pid]
    child.communicate()
    assert watch.session_members(child.pid) == []


def test_metrics_are_read_with_and_without_labels(watch: Any) -> None:
    text = '# HELP x y\nfasterseg_fps{stream="a b"} 12.5\nfasterseg_frames_total 7.0\nother 1\n'
    assert watch.metrics_of(text) == {"fps": 12.5, "frames": 7.0}


def test_lines_that_are_torn_or_out_of_order_are_faults(watch: Any, tmp_path: Path) -> None:
    path = tmp_path / "lines"
    path.write_text('{"index": 0}\n{"index": 2}\n{"index": 1}\n{"ind')
    lines = watch.Lines(path)
    lines.run()
    assert lines.count == 3
    assert [fault.split(":")[0] for fault in lines.faults] == ["line 3", "line 4"]


def test_the_cameras_clip_is_one_frame_a_packet_and_begins_anew(
    scripts: None, tmp_path: Path
) -> None:
    sender = importlib.import_module("soak_sender")
    clip = write_clip(tmp_path / "a.mp4", 30, Size(64, 96))
    assert sender.prepare(clip, tmp_path / "a.ts", (32, 48), 26) == 26
    with sender.Sender(tmp_path / "a.ts", 0, 100.0) as made:
        assert len(made.coded) == 26
        assert made.coded[0].is_keyframe
