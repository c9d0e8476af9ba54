"""Every address of several streams: what it gives, to whom, and what it never gives."""

from __future__ import annotations

import http.client
from dataclasses import replace
from urllib.parse import quote, urlsplit

import pytest

pytest.importorskip("uvicorn", reason="the extra [serve] is not installed")

from prometheus_client.parser import text_string_to_metric_families
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from fasterseg.errors import UsageError
from fasterseg.labels import CAMVID
from fasterseg.serve.access import HEADERS
from fasterseg.serve.view import View
from tests.unit.serve.clients import look
from tests.unit.serve.conftest import Serve, StubSource, ask, result_of

BELOW = ("", "classes.json", "healthz", "snapshot.png", "stats.json")
PATHS = (
    "/", "/healthz", "/metrics", "/streams.json",
    *(f"/streams/{name}/{path}" for name in ("front", "back-2") for path in BELOW),
)  # fmt: skip
SOCKETS = ("/thumbnails", "/streams/front/stream", "/streams/back-2/stream")
HOSTILE = "</script><script>alert(1)</script>\"'&<img src=x onerror=alert(2)>"


@pytest.fixture
def view(serve_many: Serve) -> View:
    """A page of two streams that have shown one result and three."""
    started: View = serve_many("front", "back-2")
    started.sinks["front"].write(result_of(0))
    for index in range(3):
        started.sinks["back-2"].write(result_of(index))
    return started


@pytest.fixture
def guarded(serve_many: Serve) -> tuple[str, str]:
    """Address and token of a page of two streams that others can reach."""
    started: View = serve_many("front", "back-2", address="http://0.0.0.0:0")
    for sink in started.sinks.values():
        sink.write(result_of(0))
    base, _, query = started.url.partition("?token=")
    port = base.rstrip("/").rpartition(":")[2]
    return f"http://127.0.0.1:{port}", query


def test_every_address_answers_with_all_protecting_headers(view: View) -> None:
    for path in PATHS:
        answer = ask(view.url, path)
        assert answer.status == 200, path
        is_page = path.endswith("/")
        assert answer.headers["content-type"].startswith("text/html") is is_page, path
        assert (
            HEADERS.items() <= {name: answer.headers.get(name.lower()) for name in HEADERS}.items()
        ), path
        assert answer.headers["content-security-policy"].startswith("default-src 'none'")


def test_each_stream_has_its_own_addresses(view: View) -> None:
    front, back = (ask(view.url, f"/streams/{name}/stats.json").json for name in view.sinks)
    assert (front["stream"], front["source"], front["frames"]) == (
        "front", "rtsp://front/stream", 1,
    )  # fmt: skip
    assert (back["stream"], back["frames"]) == ("back-2", 3)
    snapshots = {ask(view.url, f"/streams/{name}/snapshot.png").body for name in view.sinks}
    assert len(snapshots) == 2


def test_of_several_streams_the_root_has_none_of_the_addresses_of_one(view: View) -> None:
    for path in ("/stats.json", "/classes.json", "/snapshot.png"):
        assert ask(view.url, path).status == 404
    with pytest.raises(InvalidStatus):
        connect(view.url.replace("http", "ws") + "stream")


def test_one_stream_alone_has_no_list(serve: Serve) -> None:
    url = serve().url
    for path in ("/streams.json", "/streams/camera/", "/streams/camera/stats.json"):
        assert ask(url, path).status == 404


def test_it_is_healthy_only_while_every_stream_is_live(view: View) -> None:
    health = ask(view.url, "/healthz")
    states = {"front": "live", "back-2": "live"}
    assert (health.status, health.json) == (
        200, {"status": "live", "live": 2, "of": 2, "streams": states},
    )  # fmt: skip
    view.sinks["front"].close()
    health = ask(view.url, "/healthz")
    assert (health.status, health.json["status"], health.json["live"]) == (503, "ended", 1)
    assert health.json["streams"] == {"front": "ended", "back-2": "live"}
    assert ask(view.url, "/streams/front/healthz").status == 503
    assert ask(view.url, "/streams/back-2/healthz").json == {"status": "live"}


def test_metrics_of_all_streams_are_at_one_address(view: View) -> None:
    text = ask(view.url, "/metrics").body.decode()
    samples = [s for family in text_string_to_metric_families(text) for s in family.samples]
    frames = {s.labels["stream"]: s.value for s in samples if s.name == "fasterseg_frames_total"}
    assert frames == {"front": 1, "back-2": 3}
    assert ask(view.url, "/streams/front/metrics").status == 404


@pytest.mark.parametrize(
    "path",
    [
        "/streams/", "/streams", "/streams/front", "/streams/../streams.json", "/streams/../x",
        "/streams/%2e%2e/streams.json", "/streams/%2e%2e/%2e%2e/etc/passwd", "/streams/..%2fx/",
        "/streams/..%2f..%2fetc%2fpasswd/", "/streams/front/../back-2/stats.json",
        "/streams/front%2f..%2fback-2/stats.json", "/streams/front/%2e%2e/healthz",
        "/streams//stats.json", "/streams/%00/stats.json", "/streams/front%00/stats.json",
        "/streams/FRONT/", "/streams/fron/", "/streams/frontx/", "/streams/front./", "/streams/.*/",
        "/streams/front/streams/front/", "/streams/front/view.js", "/streams/front/metrics",
        "/streams/%5c..%5cx/", "/index.html", "/index.js", "/common.js", "/thumbnails",
        "/streams/" + "a" * 5000 + "/",
    ],
)  # fmt: skip
def test_there_is_nothing_but_the_addresses(path: str, view: View) -> None:
    answer = ask(view.url, path)
    assert answer.status == 404, path
    assert answer.body == b"Not Found"
    assert HEADERS["X-Content-Type-Options"] == answer.headers["x-content-type-options"]


@pytest.mark.parametrize("name", [HOSTILE, "<svg onload=alert(1)>", "{name}", "a b", "%", "ä"])
def test_unknown_names_are_not_repeated(name: str, view: View) -> None:
    for path in (f"/streams/{quote(name, safe='')}/", f"/streams/{quote(name, safe='')}/healthz"):
        answer = ask(view.url, path)
        assert (answer.status, answer.body) == (404, b"Not Found")
    connection = http.client.HTTPConnection(urlsplit(view.url).netloc, timeout=20)
    try:
        # As no browser sends it: not even a raw one comes back.
        connection.putrequest("GET", "/streams/<script>alert(1)</script>/", skip_host=False)
        connection.endheaders()
        assert b"script" not in connection.getresponse().read()
    finally:
        connection.close()


def test_unknown_streams_cannot_be_watched(view: View) -> None:
    for path in ("streams/x/stream", "streams/../stream", "streams/%2e%2e/stream", "stream"):
        with pytest.raises(InvalidStatus) as refused:
            connect(view.url.replace("http", "ws") + path)
        assert refused.value.response.status_code in (403, 404), path


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a b", "ä", HOSTILE, "{x}", "a\n", "%2e"])
def test_a_name_that_cannot_be_part_of_an_address_is_refused(name: str, serve_many: Serve) -> None:
    with pytest.raises(UsageError, match="part of a URL"):
        serve_many(name, "front")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE"])
def test_nothing_can_be_changed(method: str, view: View) -> None:
    for path in PATHS:
        assert ask(view.url, path, method=method).status == 405, path


def test_hostile_names_of_files_and_classes_reach_no_page(serve_many: Serve) -> None:
    labels = replace(CAMVID, classes=(HOSTILE, *CAMVID.classes[1:]))
    sources = {"front": StubSource(HOSTILE + "\udcff"), "back": StubSource("drive.mp4")}
    view = serve_many(sources=sources)
    view.introduce(labels, model=HOSTILE)
    view.sinks["front"].write(result_of(0, labels=labels))
    for path in ("/", "/streams/front/"):
        assert "alert(" not in ask(view.url, path).body.decode(), path
    for path in ("/streams.json", "/streams/front/stats.json", "/metrics"):
        answer = ask(view.url, path)
        assert "alert(1)" in answer.body.decode(), path
        assert not answer.headers["content-type"].startswith("text/html")
        assert answer.headers["x-content-type-options"] == "nosniff"
    assert ask(view.url, "/streams.json").json["streams"][0]["source"] == HOSTILE + "?"


def test_elsewhere_everything_but_health_needs_the_token(guarded: tuple[str, str]) -> None:
    url, token = guarded
    for path in PATHS:
        expected = 200 if path == "/healthz" else 401
        assert ask(url, path).status == expected, path
        assert ask(url, f"{path}?token=wrong").status == expected, path
        assert ask(url, path, Authorization="Bearer wrong").status == expected, path
        assert ask(url, path, Authorization=f"Bearer {token}").status == 200, path
    for path in SOCKETS:
        with pytest.raises(InvalidStatus) as refused:
            connect(f"{url.replace('http', 'ws')}{path}?token=wrong")
        assert refused.value.response.status_code == 401, path
        with connect(f"{url.replace('http', 'ws')}{path}?token={token}") as viewer:
            assert viewer.recv(timeout=20)


def test_who_has_no_token_learns_no_name_and_not_which_ones_there_are(
    guarded: tuple[str, str],
) -> None:
    url, token = guarded
    open_health = ask(url, "/healthz")
    assert open_health.json == {"status": "live", "live": 2, "of": 2}
    named = ask(url, "/healthz", Authorization=f"Bearer {token}").json
    assert named["streams"] == {"front": "live", "back-2": "live"}
    there, elsewhere = ask(url, "/streams/front/"), ask(url, "/streams/nowhere/")
    assert there.status == elsewhere.status == 401
    assert there.body == elsewhere.body
    assert b'name="token"' in there.body
    assert b"front" not in there.body
    there, elsewhere = ask(url, "/streams/front/healthz"), ask(url, "/streams/nowhere/healthz")
    assert (there.status, there.body) == (elsewhere.status, elsewhere.body)


def test_a_link_to_any_page_leaves_a_cookie_that_opens_the_rest(guarded: tuple[str, str]) -> None:
    url, token = guarded
    for link in ("/", "/streams/front/"):
        cookie = ask(url, f"{link}?token={token}").headers["set-cookie"]
        assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= set(cookie.split("; "))
        for path in PATHS:
            assert ask(url, path, Cookie=cookie.partition(";")[0]).status == 200, path


def test_other_names_and_other_pages_are_kept_out(view: View) -> None:
    for path in PATHS:
        assert ask(view.url, path, Host="evil.example.org").status == 421, path
    for path in SOCKETS:
        with pytest.raises(InvalidStatus) as refused:
            look(view.url, path[1:], origin="http://evil.example.org")
        assert refused.value.response.status_code == 403, path
