"""Every address over a real socket: what it gives, to whom, and what it never gives."""

from __future__ import annotations

import logging
from dataclasses import replace

import cv2
import numpy as np
import pytest

pytest.importorskip("uvicorn", reason="the extra [serve] is not installed")

from prometheus_client.parser import text_string_to_metric_families

from fasterseg.labels import CAMVID
from fasterseg.overlay import OverlayStyle, draw
from fasterseg.serve import figures
from fasterseg.serve.access import HEADERS
from tests.unit.serve.conftest import OneStream, Serve, StubSource, ask, result_of

PATHS = ("/", "/classes.json", "/healthz", "/metrics", "/snapshot.png", "/stats.json")
HOSTILE = "</script><script>alert(1)</script>\"'&<img src=x onerror=alert(2)>"


@pytest.fixture
def live(serve: Serve) -> OneStream:
    """A page that has shown three results."""
    started: OneStream = serve(style=OverlayStyle(0.25))
    for index in range(3):
        started.write(result_of(index))
    return started


def address(live: OneStream) -> tuple[str, str]:
    """Where to ask on this machine, and the query that lets in."""
    base, _, query = live.url.partition("?")
    port = base.rstrip("/").rpartition(":")[2]
    return f"http://127.0.0.1:{port}", f"?{query}" if query else ""


def test_every_address_answers_with_its_kind_and_all_protecting_headers(live: OneStream) -> None:
    kinds = {
        "/": "text/html", "/classes.json": "application/json", "/healthz": "application/json",
        "/metrics": "text/plain", "/snapshot.png": "image/png", "/stats.json": "application/json",
    }  # fmt: skip
    for path in PATHS:
        answer = ask(live.url, path)
        assert answer.status == 200, path
        assert answer.headers["content-type"].startswith(kinds[path])
        assert (
            HEADERS.items() <= {name: answer.headers.get(name.lower()) for name in HEADERS}.items()
        ), path
        assert answer.headers["content-security-policy"].startswith("default-src 'none'")
        assert "server" not in answer.headers


def test_stats_and_classes_tell_of_the_run(live: OneStream) -> None:
    live.introduce(CAMVID, model="fasterseg-camvid", engine="onnxruntime fp32")
    stats = ask(live.url, "/stats.json").json
    assert (stats["frames"], stats["state"], stats["viewers"]) == (3, "live", 0)
    assert stats["source"] == "rtsp://camera/stream"
    assert stats["style"] == {"alpha": 0.25, "contours": False}
    classes = ask(live.url, "/classes.json").json["classes"]
    assert classes[0] == {"id": 0, "name": "Sky", "colour": [128, 128, 128]}
    assert len(classes) == 11


def test_the_snapshot_is_the_newest_overlay_at_full_size(live: OneStream) -> None:
    newest = result_of(2)
    file = ask(live.url, "/snapshot.png").body
    read = cv2.imdecode(np.frombuffer(file, np.uint8), cv2.IMREAD_COLOR)
    assert read is not None
    expected = draw(newest.frame.image, newest.mask, newest.labels, OverlayStyle(0.25))
    assert np.array_equal(read, expected)


def test_metrics_can_be_read_by_prometheus(live: OneStream) -> None:
    text = ask(live.url, "/metrics").body.decode()
    families = {family.name for family in text_string_to_metric_families(text)}
    assert {"fasterseg_frames", "fasterseg_stage_seconds", "fasterseg_class_share"} <= families


def test_before_the_first_frame_it_is_not_healthy_and_has_no_picture(serve: Serve) -> None:
    url = serve().url
    health = ask(url, "/healthz")
    assert (health.status, health.json) == (503, {"status": "starting"})
    assert ask(url, "/snapshot.png").status == 503
    assert ask(url, "/classes.json").status == 503
    assert ask(url, "/").status == ask(url, "/stats.json").status == 200


def test_it_is_not_healthy_while_no_frames_come(
    live: OneStream, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ask(live.url, "/healthz").status == 200
    monkeypatch.setattr(figures, "LOST_AFTER_S", -1.0)
    monkeypatch.setattr(figures, "_LOST_INTERVALS", 0)
    monkeypatch.setattr(figures, "_LOST_FRAMES", 0)
    health = ask(live.url, "/healthz")
    assert (health.status, health.json) == (503, {"status": "lost"})


@pytest.mark.parametrize(
    "path",
    [
        "/../pyproject.toml", "/..%2f..%2fetc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "//etc/passwd",
        "/view.js", "/view.py", "/snapshot.png/../../view.py", "/static/../view.py", "/%00",
        "/classes.json%00.png", "/stats.json/", "/..\\..\\etc\\passwd", "/file:///etc/passwd",
        "/" + "a" * 5000,
    ],
)  # fmt: skip
def test_there_is_nothing_but_the_addresses(path: str, live: OneStream) -> None:
    answer = ask(live.url, path)
    assert answer.status == 404
    assert b"root:" not in answer.body
    assert b"import" not in answer.body


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE"])
def test_nothing_can_be_changed(method: str, live: OneStream) -> None:
    for path in PATHS:
        assert ask(live.url, path, method=method).status == 405, path


def test_hostile_names_of_files_and_classes_reach_no_page(serve: Serve) -> None:
    labels = replace(CAMVID, classes=(HOSTILE, *CAMVID.classes[1:]))
    live = serve(source=StubSource(HOSTILE + "\udcff"))
    live.introduce(labels, model=HOSTILE)
    live.write(result_of(0, labels=labels))
    assert "alert(" not in ask(live.url, "/").body.decode()
    for path in ("/stats.json", "/classes.json", "/metrics"):
        answer = ask(live.url, path)
        assert "alert(1)" in answer.body.decode(), path
        assert not answer.headers["content-type"].startswith("text/html")
        assert answer.headers["x-content-type-options"] == "nosniff"
    stats = ask(live.url, "/stats.json").json
    assert stats["source"] == HOSTILE + "?"
    assert HOSTILE in stats["class_shares"]


def test_elsewhere_than_on_this_machine_everything_but_health_needs_the_token(
    serve: Serve,
) -> None:
    live = serve("http://0.0.0.0:0")
    live.write(result_of(0))
    url, query = address(live)
    assert query.startswith("?token=")
    for path in PATHS:
        expected = 200 if path == "/healthz" else 401
        assert ask(url, path).status == expected, path
        assert ask(url, f"{path}?token=wrong").status == expected, path
        assert ask(url, path, Authorization="Bearer " + query[7:]).status == 200, path
    assert ask(url, "/healthz").json == {"status": "live"}


def test_who_has_no_token_finds_a_door_and_no_name(serve: Serve) -> None:
    url, _ = address(serve("http://0.0.0.0:0"))
    answer = ask(url, "/")
    assert answer.status == 401
    assert b'name="token"' in answer.body
    assert b"camera" not in answer.body


def test_a_link_with_the_token_leaves_a_cookie_that_opens_the_rest(serve: Serve) -> None:
    live = serve("http://0.0.0.0:0")
    live.write(result_of(0))
    url, query = address(live)
    answer = ask(url, f"/{query}")
    assert answer.status == 200
    cookie = answer.headers["set-cookie"]
    assert {"HttpOnly", "SameSite=Strict"} <= set(cookie.split("; "))
    assert query[7:] not in cookie
    for path in PATHS:
        opened = ask(url, path, Cookie=cookie.partition(";")[0])
        assert opened.status == 200, path
        assert "set-cookie" not in opened.headers


def test_a_name_that_somebody_lets_point_here_is_not_answered(live: OneStream) -> None:
    for path in PATHS:
        answer = ask(live.url, path, Host="evil.example.org")
        assert answer.status == 421, path
        assert b"FASTERSEG_VIEW_TOKEN" in answer.body
    assert ask(live.url, "/stats.json", Host="localhost:1234").status == 200


def test_what_clients_do_wrong_is_not_logged(
    live: OneStream, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    with caplog.at_level(logging.DEBUG, "uvicorn"):
        ask(live.url, "/nothing?token=secret")
        ask(live.url, "/stats.json", Content_Length="x")
        ask(live.url, "/stats.json", method="G\x7fT")
    assert "secret" not in caplog.text
    captured = capfd.readouterr()
    assert captured.out == captured.err == ""
