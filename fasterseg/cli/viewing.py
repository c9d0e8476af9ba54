"""`--view`: the live page of a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Final

import typer

from fasterseg.cli.options import note
from fasterseg.registry import resolve

if TYPE_CHECKING:
    from fasterseg.runtime.base import Engine
    from fasterseg.serve.view import View, ViewSink
    from fasterseg.stream.sinks import SinkOptions
    from fasterseg.stream.sources import FrameSource

_OPTION: Final = "--view"
_PAGES: Final = {_OPTION: "fasterseg.serve.view:open_view"}
_ADDRESSES: Final = {_OPTION: "fasterseg.serve.access:Address"}

ViewOption = Annotated[
    str | None,
    typer.Option(
        _OPTION,
        metavar="URL",
        help="Show a live page at http://HOST:PORT while it runs, of several inputs a list and a "
        "page of each; OUTPUT is not needed then. "
        "Other hosts than this machine's own need the token that is printed, or the one in "
        "FASTERSEG_VIEW_TOKEN. Metrics for Prometheus are at /metrics.",
    ),
]


def open_pages(
    url: str | None, sources: Mapping[str, FrameSource], options: SinkOptions
) -> View | None:
    """Start the live page, if one is wanted, and tell where it is.

    Args:
        url: `http://HOST:PORT`; None: no page.
        sources: name of a stream -> what is shown of it.
        options: style and colours of its overlays.

    Raises:
        MissingExtraError: the packages behind it are not installed.
        UsageError: the address or the token in the environment cannot be right.
        ConfigError: the palette file cannot be read.
        OutputError: it cannot be bound there.
    """
    if url is None:
        return None
    from fasterseg.palettes import read_palette

    address = resolve(_ADDRESSES, "option", _OPTION).parse(url)
    colours = {"paint": read_palette(options.palette).paint} if options.palette else {}
    open_view = resolve(_PAGES, "option", _OPTION)
    view: View = open_view(address, sources=sources, style=options.style, **colours)
    # Told once, and also to those who want no progress: without the token there is no way in.
    note(f"live page: {view.url}", url=view.url)
    return view


def page_sinks(view: View | None) -> list[ViewSink]:
    """The sinks of a page, in the order of its streams; none without a page."""
    return [] if view is None else list(view.sinks.values())


def introduce(view: View | None, engine: Engine) -> None:
    """Tell the page's readers what runs.

    Raises:
        ConfigError: the palette does not fit the model's classes.
    """
    if view is None:
        return
    spec = engine.spec
    view.introduce(
        spec.labels,
        model=spec.name,
        engine=f"{engine.backend} {spec.precision} {spec.size}, {engine.device}",
    )


def close_pages(view: View | None) -> None:
    """Close the page of a run that does not come about."""
    if view is not None:
        view.close()
