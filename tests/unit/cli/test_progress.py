from __future__ import annotations

import json
import logging
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from fasterseg.cli import options
from fasterseg.cli.options import LogFormat
from fasterseg.cli.progress import Meter, tell_end, tell_failure, tell_streams, told_losses
from fasterseg.errors import OutputError, SourceError
from fasterseg.stream.gathering import SharingStats
from fasterseg.stream.live import Count
from fasterseg.stream.many import Ended
from fasterseg.stream.pipeline import Progress, Summary
from fasterseg.types import LatencyStats

COUNT = Count(
    captured=120,
    processed=90,
    dropped=20,
    passed_over=7,
    duplicated=4,
    reconnects=2,
    seconds_offline=3.25,
    connected=False,
    staleness_s=0.05,
    max_staleness_s=0.125,
)


def summary(live: Count | None = None) -> Summary:
    return Summary(
        source="rtsp://cam/live",
        frames=90,
        dropped=20,
        seconds=9.0,
        latency={"engine": LatencyStats.of([2.0])},
        class_shares={"Road": 1.0},
        outputs=(Path("out.mp4"),),
        warnings=("something was mended",),
        lost_frames=0,
        truncated=False,
        live=live,
    )


@pytest.fixture
def for_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(options, "_log_format", LogFormat.JSON)


def test_the_closing_table_of_a_live_source_has_its_account(
    capsys: pytest.CaptureFixture[str],
) -> None:
    tell_end(summary(COUNT), quiet=False)
    told = capsys.readouterr().err
    assert "captured 120 = 90 processed + 20 dropped + 7 passed over + 3 unfinished" in told
    assert "4 duplicated" in told
    assert "reconnects 2, offline 3.2 s, staleness at most 125 ms" in told
    assert "warning: something was mended" in told


def test_the_closing_table_of_a_file_has_none(capsys: pytest.CaptureFixture[str]) -> None:
    tell_end(summary(), quiet=False)
    told = capsys.readouterr().err
    assert "captured" not in told
    assert "90 frames, 20 dropped in 9.0 s: 10.0 FPS" in told


def test_quiet_leaves_the_warnings(capsys: pytest.CaptureFixture[str]) -> None:
    tell_end(summary(COUNT), quiet=True)
    assert capsys.readouterr().err == "warning: something was mended\n"


@pytest.mark.usefixtures("for_machines")
def test_machines_get_the_account_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    tell_end(summary(COUNT), quiet=False)
    line = json.loads(capsys.readouterr().err.splitlines()[-1])
    assert line["summary"]["live"]["captured"] == 120


def test_losses_are_told_while_they_happen(capsys: pytest.CaptureFixture[str]) -> None:
    log = logging.getLogger("fasterseg.live")
    with told_losses():
        thread = threading.Thread(target=log.warning, args=("%s is back", "cam"))
        thread.start()
        thread.join()
        log.info("another attempt")
    assert capsys.readouterr().err == "warning: cam is back\n"
    assert log.handlers == []
    assert log.propagate


@pytest.mark.usefixtures("for_machines")
def test_losses_are_told_to_machines_too(capsys: pytest.CaptureFixture[str]) -> None:
    with told_losses():
        logging.getLogger("fasterseg.live").warning("cam is back")
    line = json.loads(capsys.readouterr().err)
    assert (line["level"], line["message"]) == ("warning", "cam is back")


def test_progress_without_a_known_end_tells_frames_and_rate(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fasterseg.cli.progress.PLAIN_INTERVAL_S", 0.0)
    meter = Meter(enabled=True)
    meter.show(Progress(50, None, 2.0))
    meter.show(Progress(50, 100, 2.0))
    meter.clear()
    assert capsys.readouterr().err.splitlines() == [
        "50 frames, 25.0 FPS",
        "50/100 frames (50%), 25.0 FPS, 0:02 left",
    ]


def test_losses_of_several_streams_say_whose_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    with told_losses(lambda: "gate"):
        logging.getLogger("fasterseg.live").warning("rtsp://cam/live is back")
    assert capsys.readouterr().err == "warning: gate: rtsp://cam/live is back\n"


def test_a_line_on_a_terminal_is_never_wrapped(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fasterseg.cli.progress.INTERVAL_S", 0.0)
    monkeypatch.setattr("fasterseg.cli.progress.draws_progress", lambda: True)
    monkeypatch.setenv("COLUMNS", "40")
    meter = Meter(enabled=True)
    meter.show(Progress(50, None, 2.0), "; 3 of 16 streams; away: " + "a-long-name, " * 20)
    text = capsys.readouterr().err.removeprefix("\r\x1b[2K")
    assert text == "50 frames, 25.0 FPS; 3 of 16 streams; aw"[:39]


ENDED = (
    Ended("gate", summary(COUNT), SourceError("rtsp://cam/live was lost for good")),
    Ended("a-longer-name", replace(summary(), latency={}, frames=0, warnings=()), None),
)
SHARING = SharingStats(45, 90, 0.5, LatencyStats.of([1.5]))


def test_the_closing_table_of_several_streams_has_a_row_for_each(
    capsys: pytest.CaptureFixture[str],
) -> None:
    tell_streams(ENDED, 10.0, {}, SHARING, quiet=False)
    told = capsys.readouterr().err.splitlines()
    assert told[:2] == [
        "warning: gate: something was mended",
        "2 streams, 90 frames in 10.0 s: 9.0 FPS end to end, all together; frames waited for 1.5 "
        "ms (p50) for the engine, which took 2.0 at once",
    ]
    rows = [line for line in told if line.startswith("  ") and line.split()]
    assert rows[1].split() == ["stream", "frames", "dropped", "lost", "FPS", "engine", "end"]
    assert rows[2].split() == ["gate", "90", "20", "0", "10.0", "2.00", "complete"]
    assert "captured 120 = 90 processed + 20 dropped" in rows[3]
    assert "reconnects 2, offline 3.2 s, staleness at most 125 ms" in rows[4]
    assert rows[5].split() == ["a-longer-name", "0", "20", "0", "0.0", "-", "complete"]
    assert len({line.index(line.split()[1]) + len(line.split()[1]) for line in rows[1:3]}) == 1
    assert told[-1] == "wrote out.mp4"


def test_quiet_leaves_the_warnings_of_several_streams(capsys: pytest.CaptureFixture[str]) -> None:
    tell_streams(ENDED, 10.0, {}, SHARING, quiet=True)
    assert capsys.readouterr().err == "warning: gate: something was mended\n"


@pytest.mark.usefixtures("for_machines")
def test_machines_get_what_several_streams_did_as_json(
    capsys: pytest.CaptureFixture[str],
) -> None:
    tell_failure(ENDED[0])
    tell_streams(ENDED, 10.0, {"streams": {"gate": 1}}, SHARING, quiet=False)
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [line["level"] for line in lines] == ["error", "warning", "info"]
    assert [line.get("stream") for line in lines[:2]] == ["gate", "gate"]
    assert lines[2]["summary"] == {"streams": {"gate": 1}}


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OutputError("disk full. Free some"), "error: gate: disk full. Free some\n"),
        (KeyError("x"), "error: gate: KeyError('x')\n"),
        (None, ""),
    ],
)
def test_a_stream_that_fails_is_told_by_name(
    capsys: pytest.CaptureFixture[str], error: Exception | None, told: str
) -> None:
    tell_failure(Ended("gate", summary(), error))
    assert capsys.readouterr().err == told
