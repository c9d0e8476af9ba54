"""Tables of a Markdown file, written from the records they name.

A table lies between two comments, and the first names its record relative to the file:

    <!-- bench: benchmarks/results/DEVICE/DATE-engines.json -->
    <!-- /bench -->
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Final

from fasterseg.bench.cells import Cell
from fasterseg.bench.records import BenchRecord
from fasterseg.cache import write_atomic
from fasterseg.errors import ConfigError, UsageError

_BLOCK: Final = re.compile(r"(<!-- bench: (\S+) -->\n).*?(<!-- /bench -->)", re.DOTALL)
_HEAD: Final = (
    "| engine | size (HxW) | model p50 ms | host-to-labels p50 ms | p99 ms | FPS "
    "| label agreement |\n| --- | --- | --- | --- | --- | --- | --- |\n"
)
_DEVICES: Final = {"cpu": "CPU", "cuda": "GPU"}


def refreshed(text: str, folder: Path) -> tuple[str, int]:
    """A text with its tables written anew.

    Args:
        text: Markdown.
        folder: what the records' paths are relative to.

    Returns:
        The text, and the number of tables in it.

    Raises:
        ConfigError: a record cannot be read.
    """

    def anew(match: re.Match[str]) -> str:
        return match[1] + markdown(BenchRecord.load(folder / match[2]), match[2]) + match[3]

    return _BLOCK.subn(anew, text)


def refresh(path: Path) -> int:
    """Write the tables of a Markdown file anew, each from the record it names.

    Returns:
        Number of tables.

    Raises:
        ConfigError: the file or a record cannot be read.
        UsageError: there is no table in it.
    """
    try:
        old = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read {path}: {error}") from error
    new, count = refreshed(old, path.parent)
    if not count:
        raise UsageError(
            f"{path} has no place for a table; put these two lines where one is to be: "
            "<!-- bench: RECORD.json --> and <!-- /bench -->"
        )
    if new != old:
        write_atomic(path, new.encode())
    return count


def markdown(record: BenchRecord, where: str) -> str:
    """A record as a Markdown table and a line that says what it was measured on.

    Args:
        record: the record.
        where: link to it.
    """
    device = record.device
    versions = {cell.engine: device.runtimes.get(cell.engine, "?") for cell in record.cells}
    engines = ", ".join(f"{name} {version}" for name, version in versions.items())
    warned = any(cell.warnings for cell in record.cells)
    wrong = any(cell.verdict == "wrong" for cell in record.cells)
    return (
        _HEAD
        + "".join(_row(cell) for cell in record.cells)
        + f"\n{device.name} (`{device.id}`), {engines}, model `{record.model}`, protocol "
        f"`{record.protocol.name}`, {record.created[:10]}: [record]({where})"
        + (", which warns of its measurement." if warned else ".")
        + (" WRONG: too few of the reference's labels." if wrong else "")
        + "\n"
    )


def _row(cell: Cell) -> str:
    host, model = cell.host_to_labels, cell.model
    cells = (
        f"{cell.title}, {_DEVICES.get(cell.device, cell.device)}",
        str(cell.size),
        f"{model.p50_ms:.1f}" if model else "-",
        f"{host.p50_ms:.1f}",
        f"{host.p99_ms:.1f}",
        f"{cell.fps_host_to_labels:.1f}",
        _agreement(cell),
    )
    return f"| {' | '.join(cells)} |\n"


def _agreement(cell: Cell) -> str:
    if cell.label_agreement is None:
        return "-"
    percent = f"{math.floor(cell.label_agreement * 1e5) / 1e3:.3f} %"
    return f"WRONG, {percent}" if cell.verdict == "wrong" else percent
