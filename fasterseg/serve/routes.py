"""The addresses of the live page: of one stream at the root, of several below `/streams/`."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Mount, Route, WebSocketRoute
from starlette.websockets import WebSocket

from fasterseg.serve import page
from fasterseg.serve.access import Access, Guard
from fasterseg.serve.feeds import Feed
from fasterseg.serve.figures import State, classes, worst_of
from fasterseg.serve.metrics import Metrics
from fasterseg.serve.page import Page
from fasterseg.serve.wall import Wall


def make_app(feeds: Mapping[str, Feed], wall: Wall, access: Access) -> Starlette:
    """The application.

    Args:
        feeds: name -> stream; one alone is shown at the root.
        wall: the pages that list several.
        access: who may look.
    """
    if len(feeds) == 1:
        (feed,) = feeds.values()
        routes = [*_routes_of(feed, access), _health_of(feed), _metrics(feeds)]
    else:
        routes = [*_routes_of_all(wall, access), _health_of_all(feeds, access), _metrics(feeds)]
        # One after the other instead of a parameter: what is no name of ours matches nothing.
        routes += [
            Mount(f"/streams/{name}", routes=[*_routes_of(feed, access), _health_of(feed)])
            for name, feed in feeds.items()
        ]
    app = Starlette(routes=routes, middleware=[Middleware(Guard, access=access)])
    app.router.redirect_slashes = False
    return app


def _routes_of(feed: Feed, access: Access) -> list[BaseRoute]:
    """What there is of one stream."""

    async def stats(request: Request) -> Response:
        return JSONResponse({**feed.reporter.stats(), "viewers": len(feed.viewers)})

    async def class_list(request: Request) -> Response:
        latest = feed.board.latest
        return _nothing_yet() if latest is None else JSONResponse(classes(latest.labels))

    async def snapshot(request: Request) -> Response:
        file = await asyncio.to_thread(feed.snapshots.newest)
        return _nothing_yet() if file is None else Response(file, media_type="image/png")

    async def look(socket: WebSocket) -> None:
        await feed.viewers.serve(socket)

    return [
        _page_at_root(page.live(), access),
        Route("/classes.json", class_list),
        Route("/snapshot.png", snapshot),
        Route("/stats.json", stats),
        WebSocketRoute("/stream", look),
    ]


def _routes_of_all(wall: Wall, access: Access) -> list[BaseRoute]:
    """What there is of all streams together."""

    async def overview(request: Request) -> Response:
        return JSONResponse({**wall.overview(), "viewers": len(wall)})

    async def look(socket: WebSocket) -> None:
        await wall.serve(socket)

    return [
        _page_at_root(page.index(), access),
        Route("/streams.json", overview),
        WebSocketRoute("/thumbnails", look),
    ]


def _page_at_root(shown: Page, access: Access) -> Route:
    async def show_page(request: Request) -> Response:
        response = HTMLResponse(shown.html, headers={page.POLICY_HEADER: shown.policy})
        # No redirect to a URL without the token: where another site's link led here, browsers
        # would follow it without a cookie that is SameSite=Strict. The page cleans its address.
        if access.cookie is not None and access.brings_token_in_query(request):
            response.headers["Set-Cookie"] = access.cookie
        return response

    return Route("/", show_page)


def _health_of(feed: Feed) -> Route:
    async def health(request: Request) -> Response:
        state = feed.reporter.state
        return JSONResponse({"status": state}, _health_code(state))

    return Route("/healthz", health)


def _health_of_all(feeds: Mapping[str, Feed], access: Access) -> Route:
    async def health(request: Request) -> Response:
        states = {name: feed.reporter.state for name, feed in feeds.items()}
        status = worst_of(states.values())
        live = sum(state == "live" for state in states.values())
        told = {"status": status, "live": live, "of": len(states)}
        # Names of cameras are not for everybody.
        named = {"streams": states} if access.trusts(request) else {}
        return JSONResponse({**told, **named}, _health_code(status))

    return Route("/healthz", health)


def _health_code(state: State) -> int:
    return 200 if state == "live" else 503


def _metrics(feeds: Mapping[str, Feed]) -> Route:
    reporters = [feed.reporter for feed in feeds.values()]
    metrics = Metrics(
        reporters, lambda: {feed.reporter.stream: len(feed.viewers) for feed in feeds.values()}
    )

    async def measured(request: Request) -> Response:
        return Response(metrics.text(), media_type=CONTENT_TYPE_LATEST)

    return Route("/metrics", measured)


def _nothing_yet() -> Response:
    return PlainTextResponse("No frame has come yet; ask again in a moment.\n", 503)
