"""Where a page may be bound, who may look, and what other web pages cannot make a browser do."""

from __future__ import annotations

import pytest

pytest.importorskip("starlette", reason="the extra [serve] is not installed")

from starlette.requests import HTTPConnection

from fasterseg.errors import UsageError
from fasterseg.serve.access import TOKEN_VARIABLE, Access, Address, token_for

TOKEN = "correct horse; battery"
PORT = 8080


def request(path: str = "/stats.json", kind: str = "http", **headers: str) -> HTTPConnection:
    named = {"host": "127.0.0.1:8080", **headers}
    path, _, query = path.partition("?")
    return HTTPConnection(
        {
            "type": kind,
            "path": path,
            "query_string": query.encode(),
            "headers": [(name.encode(), value.encode("latin-1")) for name, value in named.items()],
        }
    )


def status(access: Access, asked: HTTPConnection) -> int:
    refusal = access.refusal(asked)
    return 200 if refusal is None else refusal.status_code


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("http://127.0.0.1:8080", "127.0.0.1", 8080),
        ("http://localhost:0/", "localhost", 0),
        ("http://[::1]:80", "::1", 80),
        ("http://0.0.0.0:8080", "0.0.0.0", 8080),
        ("HTTP://Camera-Box:8080", "camera-box", 8080),
    ],
)
def test_an_address_is_host_and_port(text: str, host: str, port: int) -> None:
    assert Address.parse(text) == Address(host, port)


@pytest.mark.parametrize(
    "text",
    [
        "8080", "localhost:8080", "http://localhost", "http://:8080", "ftp://localhost:1", "",
        "http://localhost:99999", "http://localhost:x", "http://u:p@localhost:1", "http://[::1:80",
        "http://localhost:1/page", "http://localhost:1?a", "http://localhost:1#a",
    ],
)  # fmt: skip
def test_anything_else_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(UsageError, match=r"http://127\.0\.0\.1:8080"):
        Address.parse(text)


def test_https_is_refused_with_the_way_to_have_it() -> None:
    with pytest.raises(UsageError, match="proxy"):
        Address.parse("https://localhost:8080")


@pytest.mark.parametrize(
    ("host", "local"),
    [
        ("localhost", True), ("127.0.0.1", True), ("127.9.9.9", True), ("::1", True),
        ("0.0.0.0", False), ("::", False), ("192.168.1.5", False), ("camera-box", False),
        ("localhost.example.org", False), ("127.0.0.1.example.org", False),
    ],
)  # fmt: skip
def test_only_addresses_of_this_machine_go_without_a_token(
    host: str, local: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)
    token = token_for(Address(host, PORT))
    assert (token is None) is local
    assert token is None or len(token) >= 20


def test_generated_tokens_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)
    assert token_for(Address("::", 1)) != token_for(Address("::", 1))


def test_the_environments_token_holds_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TOKEN_VARIABLE, TOKEN)
    assert token_for(Address("localhost", PORT)) == TOKEN
    assert token_for(Address("0.0.0.0", PORT)) == TOKEN


@pytest.mark.parametrize("token", ["", "short"])
def test_a_token_that_keeps_nobody_out_is_refused(
    token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(TOKEN_VARIABLE, token)
    with pytest.raises(UsageError, match="at least 12"):
        token_for(Address("0.0.0.0", PORT))


def test_a_token_lets_in_by_link_header_or_cookie() -> None:
    access = Access(PORT, TOKEN)
    assert access.cookie is not None
    cookie = access.cookie.partition(";")[0]
    assert TOKEN not in access.cookie
    assert status(access, request(f"/{access.query}")) == 200
    assert status(access, request(authorization=f"Bearer {TOKEN}")) == 200
    assert status(access, request(authorization=f"bearer {TOKEN}")) == 200
    assert status(access, request(cookie=cookie)) == 200
    assert status(access, request(kind="websocket", path="/stream", cookie=cookie)) == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": "Bearer wrong"},
        {"authorization": "Bearer"},
        {"authorization": f"Basic {TOKEN}"},
        {"cookie": f"fasterseg_view_{PORT}={TOKEN}"},
        {"cookie": f"fasterseg_view_{PORT}="},
        {"cookie": "=;;;==\xff"},
    ],
)
@pytest.mark.parametrize("kind", ["http", "websocket"])
def test_without_the_right_token_nobody_gets_in(kind: str, headers: dict[str, str]) -> None:
    access = Access(PORT, TOKEN)
    assert status(access, request("/stats.json", kind, **headers)) == 401


@pytest.mark.parametrize(
    "query", ["token=", "token=wrong", f"token={TOKEN}x", "Token=" + TOKEN, "token=%FF%00%ED%A0%80"]
)
def test_a_wrong_token_in_the_link_is_no_token(query: str) -> None:
    assert status(Access(PORT, TOKEN), request(f"/stats.json?{query}")) == 401


def test_the_cookie_of_another_page_on_this_host_is_another_one() -> None:
    first, second = Access(8080, TOKEN), Access(8081, TOKEN)
    assert first.cookie is not None
    assert status(second, request(cookie=first.cookie.partition(";")[0])) == 401


def test_the_cookie_is_out_of_reach_for_scripts_and_other_sites() -> None:
    cookie = Access(PORT, TOKEN).cookie
    assert cookie is not None
    assert {"HttpOnly", "SameSite=Strict"} <= set(cookie.split("; "))


def test_whether_it_is_healthy_needs_no_token() -> None:
    access = Access(PORT, TOKEN)
    assert status(access, request("/healthz")) == 200
    assert status(access, request("/streams/front/healthz")) == 401
    assert not access.trusts(request("/healthz"))
    assert access.trusts(request("/healthz", authorization=f"Bearer {TOKEN}"))
    assert Access(PORT, None).trusts(request("/healthz"))


@pytest.mark.parametrize(
    ("path", "is_door"),
    [("/", True), ("/streams/front/", True), ("/streams/front/stats.json", False)],
)
def test_a_door_stands_where_pages_are(path: str, is_door: bool) -> None:
    refusal = Access(PORT, TOKEN).refusal(request(path))
    assert refusal is not None
    assert refusal.status_code == 401
    assert (refusal.media_type == "text/html") is is_door


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost", 200), ("127.0.0.1:8080", 200), ("[::1]:8080", 200), ("localhost:9000", 200),
        ("evil.example.org", 421), ("evil.example.org:8080", 421), ("localhost.evil.org", 421),
        ("127.0.0.1.evil.org", 421), ("", 421), ("[::1", 421), ("localhost@evil.org", 421),
        ("192.168.1.5", 421),
    ],
)  # fmt: skip
def test_without_a_token_only_names_of_this_machine_are_answered(host: str, expected: int) -> None:
    access = Access(PORT, None)
    assert status(access, request(host=host)) == expected
    assert status(access, request("/healthz", host=host)) == expected


@pytest.mark.parametrize("token", [None, TOKEN])
@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        ("http://127.0.0.1:8080", True), ("https://127.0.0.1:8080", True),
        ("http://127.0.0.1:9000", False), ("http://evil.example.org", False), ("null", False),
        ("", False), ("file://", False),
    ],
)  # fmt: skip
def test_no_other_page_opens_the_stream(token: str | None, origin: str, allowed: bool) -> None:
    access = Access(PORT, token)
    asked = request(f"/stream{access.query}", "websocket", origin=origin)
    assert status(access, asked) == (200 if allowed else 403)
