"""The addresses of the live page."""

from __future__ import annotations

import asyncio

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from fasterseg.serve import page
from fasterseg.serve.access import Access, Guard
from fasterseg.serve.board import Board
from fasterseg.serve.figures import Reporter, classes
from fasterseg.serve.metrics import Metrics
from fasterseg.serve.pictures import Snapshots
from fasterseg.serve.viewers import Viewers


def make_app(
    board: Board, reporter: Reporter, snapshots: Snapshots, access: Access, viewers: Viewers
) -> Starlette:
    """The application.

    Args:
        board: what is shown.
        reporter: its figures.
        snapshots: its pictures at full size.
        access: who may look.
        viewers: the open pages.
    """
    metrics = Metrics(reporter, lambda: len(viewers))

    async def show_page(request: Request) -> Response:
        live = page.live()
        response = HTMLResponse(live.html, headers={page.POLICY_HEADER: live.policy})
        # No redirect to a URL without the token: where another site's link led here, browsers
        # would follow it without a cookie that is SameSite=Strict. The page cleans its address.
        if access.cookie is not None and access.brings_token_in_query(request):
            response.headers["Set-Cookie"] = access.cookie
        return response

    async def health(request: Request) -> Response:
        state = reporter.state
        return JSONResponse({"status": state}, 200 if state == "live" else 503)

    async def stats(request: Request) -> Response:
        return JSONResponse({**reporter.stats(), "viewers": len(viewers)})

    async def class_list(request: Request) -> Response:
        latest = board.latest
        return _nothing_yet() if latest is None else JSONResponse(classes(latest.labels))

    async def snapshot(request: Request) -> Response:
        file = await asyncio.to_thread(snapshots.newest)
        return _nothing_yet() if file is None else Response(file, media_type="image/png")

    async def measured(request: Request) -> Response:
        return Response(metrics.text(), media_type=CONTENT_TYPE_LATEST)

    async def look(socket: WebSocket) -> None:
        await viewers.serve(socket)

    routes = [
        Route("/", show_page),
        Route("/classes.json", class_list),
        Route("/healthz", health),
        Route("/metrics", measured),
        Route("/snapshot.png", snapshot),
        Route("/stats.json", stats),
        WebSocketRoute("/stream", look),
    ]
    app = Starlette(routes=routes, middleware=[Middleware(Guard, access=access)])
    app.router.redirect_slashes = False
    return app


def _nothing_yet() -> Response:
    return PlainTextResponse("No frame has come yet; ask again in a moment.\n", 503)
