"""The live page of a run: sinks that pipelines write to, a server in a thread of its own."""

from __future__ import annotations

import logging
import re
import socket
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import uvicorn
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from fasterseg.errors import OutputError, UsageError
from fasterseg.interrupts import deferred
from fasterseg.labels import LabelSet
from fasterseg.overlay import OverlayStyle
from fasterseg.serve.access import Access, Address, token_for
from fasterseg.serve.board import Board
from fasterseg.serve.conversation import Seats
from fasterseg.serve.feeds import Feed, make_feeds
from fasterseg.serve.figures import printable
from fasterseg.serve.routes import make_app
from fasterseg.serve.viewers import MAX_VIEWERS, MAX_VIEWERS_IN_ALL
from fasterseg.serve.wall import Wall
from fasterseg.stream.readahead import Worker
from fasterseg.stream.results import SegmentationResult
from fasterseg.stream.sources import FrameSource

MAX_CONNECTIONS: Final = 64
"""Open connections of all kinds; further ones are answered with 503."""
_STUCK_AFTER_S: Final = 30
"""Seconds after which the system drops a connection whose other end takes nothing."""
_FAREWELL_S: Final = 1.0
"""Seconds in which viewers are told that the run has ended; those who listen take half of it."""
_CLOSING_S: Final = 1
_LARGEST_MESSAGE: Final = 256
_EVERYWHERE: Final = ("0.0.0.0", "::")
_NAME: Final = re.compile(r"[A-Za-z0-9._-]+")
_LOGGER: Final = logging.getLogger("uvicorn.error")


class ViewSink:
    """Shows the results of one stream. `write` takes microseconds, however slowly anybody looks.

    Pictures are encoded while somebody looks, in the server's thread.

    Args:
        board: what the server shows.
    """

    def __init__(self, board: Board) -> None:
        self.paths: list[Path] = []
        self._board = board

    def write(self, result: SegmentationResult) -> None:
        """Show one result in place of the one before; never waits."""
        self._board.put(result)

    def close(self) -> None:
        """Tell that this stream has ended; the page stays. May be called twice."""
        self._board.end()


class View:
    """The live page: a sink for each stream, and a server in a thread. Made by `open_view`.

    In a `with` block it is closed at the end; what stopped the block is told before its own error.

    Args:
        server: the page's server, not yet running.
        listening: the socket it is to answer on.
        feeds: name -> what the server shows of the stream.
        house: places of those who look.
        url: where the page is, with the token where one is needed.
    """

    def __init__(
        self,
        server: uvicorn.Server,
        listening: socket.socket,
        feeds: Mapping[str, Feed],
        house: Seats,
        url: str,
    ) -> None:
        self.url = url
        self.sinks: Mapping[str, ViewSink] = {n: ViewSink(f.board) for n, f in feeds.items()}
        self._server = server
        self._feeds = feeds
        self._house = house
        self._worker = Worker("view", lambda: server.run(sockets=[listening]))
        self._closed = False

    def start(self) -> None:
        """Start the server; returns when it answers.

        Raises:
            OutputError: it does not start.
        """
        self._worker.start()
        while not self._server.started:
            if not self._worker.is_alive():
                raise OutputError(
                    f"the live page could not be started: {self._worker.error!r}; leave --view out"
                )
            time.sleep(0.01)

    def introduce(self, labels: LabelSet, **facts: str) -> None:
        """Tell what runs, before the first frame.

        Args:
            labels: the model's classes.
            **facts: what stays and is worth telling: `model`, `engine`.

        Raises:
            ConfigError: the colours that were asked for do not fit the classes.
        """
        told = {name: printable(text) for name, text in facts.items()}
        for feed in self._feeds.values():
            feed.board.painted(labels)
            feed.reporter.about.update(told)

    def close(self) -> None:
        """Tell the viewers that it is over, and stop the server; may be called twice.

        Raises:
            OutputError: the server had stopped by itself.
        """
        if self._closed:
            return
        self._closed = True
        # A signal must not leave a server behind that answers for nobody.
        with deferred(lambda: None):
            for sink in self.sinks.values():
                sink.close()
            until_s = time.monotonic() + _FAREWELL_S
            while self._house.taken and time.monotonic() < until_s:
                time.sleep(0.02)
            self._server.should_exit = True
            self._worker.join()
        if self._worker.error is not None:
            raise OutputError(
                f"the live page had stopped: {self._worker.error!r}; what else was written is "
                "complete"
            ) from self._worker.error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self.close()
        except OutputError:
            if error is None:
                raise


def open_view(
    address: Address,
    *,
    sources: Mapping[str, FrameSource],
    style: OverlayStyle,
    paint: Callable[[LabelSet], LabelSet] = lambda labels: labels,
) -> View:
    """Start the live page.

    Args:
        address: where it is bound; with a token in all but addresses of this machine.
        sources: name of a stream -> what its results come from, at least one; its name and its
            counts are shown. One alone is at `/`; of several there is a list, and each is at
            `/streams/<name>/`.
        style: how `/snapshot.png` is drawn, and what the page begins with.
        paint: gives the model's classes other colours.

    Raises:
        OutputError: it cannot be bound there.
        UsageError: the token in the environment is too short, or a name cannot be part of a URL.
    """
    _check_names(sources)
    token = token_for(address)
    listening = _bound(address)
    port = listening.getsockname()[1]
    access = Access(port, token)
    house = Seats(MAX_VIEWERS_IN_ALL)
    feeds = make_feeds(sources, style, paint, house)
    wall = Wall(feeds, style, Seats(MAX_VIEWERS, house))
    config = uvicorn.Config(
        make_app(feeds, wall, access),
        loop="asyncio",
        http="h11",
        ws=WebSocketsSansIOProtocol,
        # Pictures are compressed already.
        ws_per_message_deflate=False,
        ws_max_size=_LARGEST_MESSAGE,
        lifespan="off",
        log_config=None,
        log_level="error",
        # Requests hold tokens, and nobody reads what scanners send.
        access_log=False,
        proxy_headers=False,
        server_header=False,
        limit_concurrency=MAX_CONNECTIONS,
        timeout_graceful_shutdown=_CLOSING_S,
    )
    _LOGGER.addFilter(_is_fault)
    url = f"http://{_shown_host(address)}:{port}/{access.query}"
    view = View(uvicorn.Server(config), listening, feeds, house, url)
    view.start()
    return view


def _check_names(names: Iterable[str]) -> None:
    several = tuple(names)
    for name in several if len(several) > 1 else ():
        if not _NAME.fullmatch(name) or name in (".", ".."):
            raise UsageError(
                f"{printable(name)!r} cannot be part of a URL; name streams by letters and digits "
                "of ASCII, '.', '_' and '-'"
            )


def _is_fault(record: logging.LogRecord) -> bool:
    """Whether a log line is about a fault of ours: what clients do wrong is no news."""
    return record.exc_info is not None and not isinstance(record.exc_info[1], UnicodeError)


def _bound(address: Address) -> socket.socket:
    host = "127.0.0.1" if address.host == "localhost" else address.host
    both = host == "::" and socket.has_dualstack_ipv6()
    try:
        family = socket.getaddrinfo(host, address.port, type=socket.SOCK_STREAM)[0][0]
        where = (host, address.port)
        listening = socket.create_server(where, family=family, dualstack_ipv6=both)
    except OSError as error:
        raise OutputError(
            f"cannot show the live page at {address.host}:{address.port}: "
            f"{error.strerror or error}. Give another port, or an address of this machine: "
            f"--view http://127.0.0.1:0 takes any free port"
        ) from error
    # Without it a browser that sleeps in mid-picture would hold its connection for ever.
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        milliseconds = _STUCK_AFTER_S * 1000
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)
    return listening


def _shown_host(address: Address) -> str:
    host = socket.gethostname() if address.host in _EVERYWHERE else address.host
    return f"[{host}]" if ":" in host else host
