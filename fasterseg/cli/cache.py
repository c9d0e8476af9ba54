"""`fasterseg cache`: what is kept between runs, and how to be rid of it."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Annotated

import typer

from fasterseg.cli.options import EPILOG, DebugOption, LogFormat, LogFormatOption, new_app, note

if TYPE_CHECKING:
    from fasterseg.cache import CacheEntry

_DAY_S = 86400.0

STREETS = "streets"
"""Kind of the entries that trainings keep (`search.data`): hundreds of small files."""

app = new_app(
    "Engines that were built on first use. They lie in $FASTERSEG_CACHE, else "
    "$XDG_CACHE_HOME/fasterseg, else ~/.cache/fasterseg; beyond $FASTERSEG_CACHE_LIMIT (4G, or "
    "500M, 1.5G, none) those unused for longest are removed. Each is built again when it is needed."
)


@app.command("list", epilog=EPILOG)
def list_(
    json_: Annotated[bool, typer.Option("--json", help="As JSON, on stdout.")] = False,
    log_format: LogFormatOption = LogFormat.TEXT,
    debug: DebugOption = False,
) -> None:
    """List every engine with its size, its age and when it was last used.

    Streets that were rendered for trainings are only counted.
    """
    from fasterseg.cache import byte_text, cache_root, entries, size_limit

    found = entries()[::-1]
    limit = size_limit()
    if json_:
        facts = {
            "schema": 1,
            "path": str(cache_root()),
            "limit": limit,
            "entries": [_facts(entry) for entry in found],
        }
        print(json.dumps(facts, indent=2))
        return
    engines = [entry for entry in found if entry.kind != STREETS]
    now = time.time()
    rows = [("SIZE", "BUILT", "LAST USED", "ENGINE")]
    rows += [
        (byte_text(e.size), _ago(now - e.built), _ago(now - e.used), e.path.name) for e in engines
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for size, *times, name in rows if engines else []:
        cells = [size.rjust(widths[0]), times[0].ljust(widths[1]), times[1].ljust(widths[2])]
        print("  ".join([*cells, name]))
    total = sum(entry.size for entry in found)
    bound = "without a limit" if limit is None else f"of {byte_text(limit)}"
    note(f"{counted(found)}, {byte_text(total)} {bound} in {cache_root()}")


@app.command(epilog=EPILOG)
def clear(
    older_than: Annotated[
        float | None,
        typer.Option(min=0.0, metavar="DAYS", help="Only what was not used for so many days."),
    ] = None,
    limit: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE", help="Only until the rest fits, unused for longest first: 500M, 2G."
        ),
    ] = None,
    log_format: LogFormatOption = LogFormat.TEXT,
    debug: DebugOption = False,
) -> None:
    """Remove engines: all, the old ones, or as many as it takes.

    \b
    Examples:
      fasterseg cache clear
      fasterseg cache clear --older-than 30
      fasterseg cache clear --limit 500M
    """  # noqa: D301 - \b is Click's mark for a block that must not be wrapped
    from fasterseg.cache import byte_text, entries, parse_bytes, remove, trim

    most = None if limit is None else parse_bytes(limit)
    gone = []
    if older_than is not None or most is None:
        before = time.time() - (older_than or 0.0) * _DAY_S
        gone += remove(e for e in entries() if older_than is None or e.used < before)
    gone += trim(most)
    note(f"removed {counted(gone)}, {byte_text(sum(entry.size for entry in gone))}")


@app.command(epilog=EPILOG)
def path(log_format: LogFormatOption = LogFormat.TEXT, debug: DebugOption = False) -> None:
    """Print the folder."""
    from fasterseg.cache import cache_root

    print(cache_root())


def counted(found: list[CacheEntry]) -> str:
    """`1 engine`, `2 engines and 160 rendered streets`."""
    streets = sum(entry.kind == STREETS for entry in found)
    engines = len(found) - streets
    text = f"{engines} engine{'' if engines == 1 else 's'}"
    if streets:
        text += f" and {streets} rendered street{'' if streets == 1 else 's'}"
    return text


def _ago(seconds: float) -> str:
    for unit, length in (("d", _DAY_S), ("h", 3600.0), ("min", 60.0)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit} ago"
    return "just now"


def _facts(entry: CacheEntry) -> dict[str, object]:
    return {
        "path": str(entry.path),
        "bytes": entry.size,
        "built": round(entry.built, 3),
        "used": round(entry.used, 3),
    }
