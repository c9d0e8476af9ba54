"""Addresses that can be pushed to, what FFmpeg is told of them, and that nobody sees passwords."""

from __future__ import annotations

import pytest

from fasterseg.errors import OutputError, UsageError
from fasterseg.stream import sinks_address
from fasterseg.stream.sinks_address import TRANSPORTS, target_of

SECRET = "geheim"


@pytest.fixture
def everything(monkeypatch: pytest.MonkeyPatch) -> None:
    """An FFmpeg that has every protocol."""
    monkeypatch.setattr(sinks_address, "_has_protocol", lambda protocol: True)


@pytest.mark.parametrize(
    ("address", "container", "url"),
    [
        ("rtsp://h:8554/front", "rtsp", "rtsp://h:8554/front"),
        ("rtsps://h/front", "rtsp", "rtsps://h/front"),
        ("RTSP://u:p%40%2Fw@h/x y", "rtsp", "rtsp://u:p%40%2Fw@h/x y"),
        ("rtsp://u:p@[::1]:8554/x", "rtsp", "rtsp://u:p@[::1]:8554/x"),
        ("rtsp://h/x?udp&a=1", "rtsp", "rtsp://h/x?a=1"),
        ("rtmp://u:p%40w@h/app/key?a=1", "flv", "rtmp://u:p@w@h/app/key?a=1"),
        ("srt://h:9000?passphrase=x", "mpegts", "srt://h:9000?passphrase=x&pkt_size=1316"),
        ("udp://239.0.0.1:9000", "mpegts", "udp://239.0.0.1:9000?pkt_size=1316"),
        ("udp://[::1]:9000?pkt_size=188", "mpegts", "udp://[::1]:9000?pkt_size=188"),
        ("tcp://h:9000", "mpegts", "tcp://h:9000"),
    ],
)
@pytest.mark.usefixtures("everything")
def test_an_address_becomes_what_ffmpeg_takes(address: str, container: str, url: str) -> None:
    target = target_of(address)
    assert (target.container, target.url) == (container, url)


@pytest.mark.parametrize(("query", "transport"), [("", "tcp"), ("?udp", "udp"), ("?tcp", "tcp")])
def test_rtsp_goes_over_tcp_unless_the_address_says_udp(query: str, transport: str) -> None:
    assert target_of(f"rtsp://h/x{query}").options["rtsp_transport"] == transport


@pytest.mark.parametrize("scheme", ["rtmp", "tcp", "udp"])
def test_pictures_do_not_wait_in_a_buffer_of_ours(scheme: str) -> None:
    assert target_of(f"{scheme}://h:9000").options["flush_packets"] == "1"


@pytest.mark.parametrize(
    ("address", "message"),
    [
        (f"http://u:{SECRET}@h/x", "nothing can be pushed to http://.*rtsp://"),
        (f"file:///x/{SECRET}", "nothing can be pushed to file://"),
        (f"rtsp:///x?{SECRET}", "names no host and port; write rtsp://server:8554/name"),
        (f"rtsp://u:{SECRET}@h:99999/x", "names no host"),
        (f"rtsp://u:{SECRET}@h:0/x", "names no host"),
        (f"rtsp://u:{SECRET}@[::1/x", "names no host"),
        (f"rtsp://u:{SECRET}/w@h/x", "%2F for /"),
        (f"udp://u:{SECRET}@h", "write udp://server:9000"),
        (f"udp://u:{SECRET}@h:9000/front", "has a host and a port, and no path"),
        (f"rtmp://u:{SECRET}%2Fw@h/x", "takes no / [?] or #"),
    ],
)
def test_an_address_that_cannot_be_is_told_without_its_password(address: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        target_of(address)
    assert SECRET not in str(caught.value) or "file" in address
    assert caught.value.__context__ is None


def test_a_protocol_that_ffmpeg_lacks_is_told_with_those_it_has(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sinks_address, "_has_protocol", lambda protocol: protocol == "udp")
    with pytest.raises(OutputError, match=r"has no srt. What it has: udp://$") as caught:
        target_of(f"srt://h:9000?passphrase={SECRET}")
    assert SECRET not in str(caught.value)


def test_ffmpeg_is_asked_what_it_has() -> None:
    for transport in TRANSPORTS.values():
        sinks_address._has_protocol(transport.protocol)
    assert sinks_address._has_protocol("tcp")
    assert sinks_address._has_protocol("udp")
    assert not sinks_address._has_protocol("nosuch")


@pytest.mark.parametrize(
    ("address", "secret", "url"),
    [
        ("rtsp://u:${PUSH}@h/x", "p@s/s", "rtsp://u:p%40s%2Fs@h/x"),
        ("rtmp://u:${PUSH}@h/app/x", "p@s%41", "rtmp://u:p@s%41@h/app/x"),
        ("rtmp://h/app/${PUSH}", "key", "rtmp://h/app/key"),
    ],
)
def test_secrets_are_named_and_filled_in_for_ffmpeg_alone(
    address: str, secret: str, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PUSH", secret)
    assert target_of(address).url == url


def test_a_secret_that_rtmp_cannot_carry_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PUSH", f"{SECRET}/x")
    with pytest.raises(UsageError, match=r"takes no / [?] or #") as caught:
        target_of("rtmp://u:${PUSH}@h/app/x")
    assert SECRET not in str(caught.value)


def test_a_secret_without_a_value_is_told_before_anything_runs() -> None:
    with pytest.raises(UsageError, match="NO_SUCH_SECRET"):
        target_of("rtsp://u:${NO_SUCH_SECRET}@h/x")


def test_what_is_printed_of_a_target_has_no_password() -> None:
    assert SECRET not in repr(target_of(f"rtsp://u:{SECRET}@h/x?{SECRET}"))
