"""The sink itself: it starts, takes results, tells its address, and is gone when it is closed."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

pytest.importorskip("uvicorn", reason="the extra [serve] is not installed")

from fasterseg.errors import ConfigError, OutputError
from fasterseg.labels import CAMVID, CITYSCAPES
from fasterseg.palettes import read_palette
from fasterseg.stream.live import Account
from fasterseg.stream.pipeline import run_pipeline
from fasterseg.stream.segmenter import Segmenter
from fasterseg.stream.sinks import FrameSink
from tests.unit.serve.conftest import Serve, StubSource, ask, result_of
from tests.unit.stream.conftest import FakeSource, StandIn, numbered


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_it_is_a_sink_that_writes_no_files(serve: Serve) -> None:
    sink: FrameSink = serve().sink
    sink.write(result_of(0))
    assert sink.paths == []


def test_a_pipeline_shows_its_results_and_its_end_and_the_page_stays(serve: Serve) -> None:
    live = serve()
    seen: list[int] = []

    def look(number: int) -> None:
        if number == 9:
            seen.append(ask(live.url, "/stats.json").json["frames"])

    source = FakeSource(numbered(10), look)
    with Segmenter(lambda size: StandIn(size)) as segmenter:
        summary = run_pipeline(source, segmenter, [live.sink])
    assert summary.frames == 10
    assert summary.outputs == ()
    assert seen
    stats = ask(live.url, "/stats.json").json
    assert (stats["frames"], stats["state"]) == (10, "ended")
    live.close()
    with pytest.raises(OSError, match=r"refused"):
        ask(live.url, "/stats.json")


def test_what_stopped_a_run_is_told_before_a_server_that_stopped(serve_many: Serve) -> None:
    view = serve_many("front", "back")
    view._worker.error = RuntimeError("stopped by itself")
    with pytest.raises(KeyboardInterrupt), view:
        raise KeyboardInterrupt
    view = serve_many("front", "back")
    view._worker.error = RuntimeError("stopped by itself")
    with pytest.raises(OutputError, match="stopped by itself"), view:
        pass


def test_any_free_port_is_found_and_told(serve: Serve) -> None:
    first, second = serve(), serve()
    assert first.url != second.url
    assert first.url.startswith("http://127.0.0.1:")
    assert first.url.endswith("/")
    assert ask(first.url, "/stats.json").status == 200


def test_bound_elsewhere_the_address_holds_machine_and_token(serve: Serve) -> None:
    url = serve("http://0.0.0.0:0").url
    assert url.startswith(f"http://{socket.gethostname()}:")
    assert "/?token=" in url


def test_an_address_that_is_taken_is_refused_with_another_one(serve: Serve) -> None:
    taken = serve().url.rstrip("/")
    with pytest.raises(OutputError, match=r"127\.0\.0\.1:0"):
        serve(taken)


def test_an_address_of_another_machine_is_refused(serve: Serve) -> None:
    with pytest.raises(OutputError, match="cannot show"):
        serve("http://192.0.2.1:8080")


def test_nothing_is_left_of_a_page_that_was_looked_at(serve: Serve) -> None:
    def once() -> None:
        live = serve()
        live.write(result_of(0))
        for path in ("/", "/snapshot.png", "/metrics"):
            assert ask(live.url, path).status == 200
        live.close()
        live.close()

    once()
    before = open_files()
    for _ in range(3):
        once()
    assert open_files() <= before


def test_colours_asked_for_are_shown_and_those_that_do_not_fit_refused(serve: Serve) -> None:
    live = serve(paint=read_palette("cityscapes").paint)
    live.introduce(CITYSCAPES)
    with pytest.raises(ConfigError, match="cityscapes"):
        live.introduce(CAMVID)
    live = serve(paint=read_palette("distinct").paint)
    live.write(result_of(0))
    colours = [entry["colour"] for entry in ask(live.url, "/classes.json").json["classes"]]
    assert colours != [list(colour) for colour in CAMVID.palette]


def test_what_a_live_source_counts_is_shown_and_its_loss_at_once(serve: Serve) -> None:
    class Live(StubSource):
        account = Account()

    source = Live()
    source.lost_frames = 2
    source.account.count(captured=10, dropped=3)
    live = serve(source=source)
    live.write(result_of(0))
    stats = ask(live.url, "/stats.json").json
    assert stats["counters"]["captured"] == 10
    assert stats["counters"]["dropped"] == 3
    assert stats["counters"]["lost_frames"] == 2
    assert ask(live.url, "/healthz").status == 200
    source.account.lost(0.0)
    assert ask(live.url, "/healthz").json == {"status": "lost"}
