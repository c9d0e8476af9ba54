"""Who may look: the address a page is bound to, tokens, and what browsers are told to refuse."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import os
import secrets
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, urlsplit

from starlette.datastructures import MutableHeaders
from starlette.requests import HTTPConnection
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fasterseg.errors import UsageError
from fasterseg.serve import page

TOKEN_VARIABLE: Final = "FASTERSEG_VIEW_TOKEN"
OPEN_PATHS: Final = frozenset({"/healthz"})
"""What needs no token: whether frames come, for probes that cannot bring one; no names."""

_SHORTEST_TOKEN: Final = 12
_EXAMPLE: Final = "http://127.0.0.1:8080"

HEADERS: Final = {
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
"""Sent with every answer."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where a page is bound.

    Attributes:
        host: name or address of an interface.
        port: 0 takes any free one.
    """

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read `http://HOST:PORT`.

        Raises:
            UsageError: it is something else.
        """
        try:
            parts = urlsplit(text)
            host, port = parts.hostname, parts.port
        except ValueError as error:
            raise UsageError(f"--view {text}: {error}; give {_EXAMPLE}") from None
        if parts.scheme == "https":
            raise UsageError(
                f"--view {text}: the page itself speaks http; put a proxy with your certificate "
                f"before it, and give {_EXAMPLE}"
            )
        surplus = parts.path not in ("", "/") or parts.query or parts.fragment or "@" in text
        if parts.scheme != "http" or not host or port is None or surplus:
            raise UsageError(f"--view {text} is not http://HOST:PORT, for example {_EXAMPLE}")
        return cls(host, port)

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach it."""
        return _is_local(self.host)


def _is_local(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def token_for(address: Address) -> str | None:
    """The token that viewers must bring: the environment's, a new one, or none on this machine.

    Raises:
        UsageError: the environment's is too short to keep anybody out.
    """
    given = os.environ.get(TOKEN_VARIABLE)
    if given is None:
        return None if address.is_local else secrets.token_urlsafe(18)
    if len(given) < _SHORTEST_TOKEN:
        raise UsageError(
            f"{TOKEN_VARIABLE} has {len(given)} characters; give at least {_SHORTEST_TOKEN}, or "
            "unset it and take the token that is printed"
        )
    return given


class Access:
    """Decides about single requests.

    With a token, whoever brings it may look. Without one the page is bound to this machine, and
    other web pages in its browser are kept out: they can make the browser ask here (also under
    a name of their own that they let point here), but not forge what it says of them.

    Args:
        port: the port that is bound; names the cookie, which browsers keep per host only.
        token: what viewers must bring; None: none.
    """

    def __init__(self, port: int, token: str | None) -> None:
        self._token = token
        self._cookie = f"fasterseg_view_{port}"
        # A token may hold what a cookie cannot.
        self._pass = hashlib.sha256(f"fasterseg view {token}".encode()).hexdigest()

    @property
    def query(self) -> str:
        """What follows the address in a link that lets its reader in; empty without a token."""
        return "" if self._token is None else f"?token={quote(self._token, safe='')}"

    @property
    def cookie(self) -> str | None:
        """Set-Cookie header for those who brought the token; None without one."""
        if self._token is None:
            return None
        return f"{self._cookie}={self._pass}; HttpOnly; SameSite=Strict; Path=/; Max-Age=2592000"

    def refusal(self, request: HTTPConnection) -> Response | None:
        """The answer to a request that is refused; None when it may go on."""
        if request.scope["type"] == "websocket" and not _same_origin(request):
            return PlainTextResponse("This page may not open the stream.\n", 403)
        if self._token is None:
            return None if _names_this_machine(request) else _wrong_host()
        if request.scope["path"] in OPEN_PATHS or self.trusts(request):
            return None
        return self._door(request)

    def trusts(self, request: HTTPConnection) -> bool:
        """Whether a request that is not refused may be told everything."""
        return self._token is None or self._brings_token(request, self._token)

    def brings_token_in_query(self, request: HTTPConnection) -> bool:
        """Whether the token is part of the URL."""
        return self._token is not None and any(
            _same(given, self._token) for given in request.query_params.getlist("token")
        )

    def _door(self, request: HTTPConnection) -> Response:
        headers = {"WWW-Authenticate": "Bearer"}
        # Whether there is such a page is nothing to be told here.
        if request.scope["type"] == "http" and request.scope["path"].endswith("/"):
            door = page.door()
            return HTMLResponse(door.html, 401, {**headers, page.POLICY_HEADER: door.policy})
        text = "A token is needed, as ?token=TOKEN or as 'Authorization: Bearer TOKEN'.\n"
        return PlainTextResponse(text, 401, headers)

    def _brings_token(self, request: HTTPConnection, token: str) -> bool:
        kind, _, bearer = request.headers.get("authorization", "").partition(" ")
        return (
            _same(request.cookies.get(self._cookie, ""), self._pass)
            or (kind.lower() == "bearer" and _same(bearer.strip(), token))
            or self.brings_token_in_query(request)
        )


def _same(given: str, expected: str) -> bool:
    """Comparison whose time tells nothing about how much of it was right."""
    return hmac.compare_digest(given.encode(errors="replace"), expected.encode(errors="replace"))


def _host_of(authority: str) -> str:
    """Name or address in `host:port`, without brackets; empty when there is none."""
    try:
        return urlsplit(f"//{authority}").hostname or ""
    except ValueError:
        return ""


def _names_this_machine(request: HTTPConnection) -> bool:
    # The port is free: an SSH tunnel has its own at the other end.
    return _is_local(_host_of(request.headers.get("host", "")))


def _wrong_host() -> Response:
    return PlainTextResponse(
        "This page answers as localhost only. To reach it under another name, through a proxy for "
        f"example, set {TOKEN_VARIABLE} and bring the token.\n",
        421,
    )


def _same_origin(request: HTTPConnection) -> bool:
    """Whether a page of ours asks, or a program, which says nothing about pages."""
    origin = request.headers.get("origin")
    if origin is None:
        return True
    scheme, _, authority = origin.partition("://")
    return scheme in ("http", "https") and authority == request.headers.get("host", "")


class Guard:
    """Asks `Access` about every request, and puts `HEADERS` on every answer.

    Args:
        app: who answers those that may go on.
        access: who decides.
    """

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or let the application answer."""

        async def send_guarded(message: Message) -> None:
            if message["type"] in ("http.response.start", "websocket.http.response.start"):
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
                headers.setdefault(page.POLICY_HEADER, page.BARE_POLICY)
            await send(message)

        refusal = self._access.refusal(HTTPConnection(scope))
        await (refusal or self._app)(scope, receive, send_guarded)
