"""Records as text: tables of cells, ratios, stages."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fasterseg.bench.cells import Cell
    from fasterseg.bench.comparison import CellRatio, RatioSpread
    from fasterseg.bench.interleave import Ratio
    from fasterseg.bench.records import BenchRecord
    from fasterseg.types import LatencyStats

_HEAD: Final = (
    "engine", "precision", "size", "batch", "threads", "tail", "model p50",
    "host_to_labels p50", "p90", "p95", "p99", "cov", "fps", "agreement",
)  # fmt: skip
_RATIO_HEAD: Final = (
    "engine", "precision", "size", "batch", "model A", "model B", "B/A", "(spread)",
    "host_to_labels A", "host_to_labels B", "B/A", "(spread)",
)  # fmt: skip

SCOPES: Final = (
    "model: the engine's own work on frames already in its input buffer, tail included, no copies "
    "(device clock on a GPU). host_to_labels: uint8 frames in host memory to uint8 labels in host "
    "memory, copies in. Decoding, resizing and drawing are in neither. Times in ms per call; "
    "fps = 1000 x batch / host_to_labels p50; of several streams it is counted over all of them. "
    "agreement: share of all pixels labelled as the reference does (fp32 on the CPU, torch where "
    "it is installed, else onnxruntime); - for the reference itself, or without it; WRONG: too few."
)
NETWORK: Final = (
    "network p50: input to logits as the network gives them, upsampling and argmax left out; ours "
    "at 1/8 of the frame, with its normalisation. Peers have other weights and other accuracy: a "
    "ratio of times alone does not say which network to take."
)
STREAMS: Final = (
    "streams: calls at the same time; host_to_labels is over all of them, waiting included, and "
    '"slowest p99" is that of the stream where it is highest. one engine: all streams share '
    "it, and frames that come together are run as one batch, of N at most, for which a frame "
    "waits so many ms at most; fill: frames per batch over that N; waited: from a frame's arrival "
    "to the start of its batch. Else each stream has an engine of its own."
)
END_TO_END: Final = (
    "end to end: from the encoded video to the written file; stages are medians in ms a frame. "
    "decode and prepare share a thread, finish and write another, so stages overlap."
)


def table(record: BenchRecord) -> list[str]:
    """The record as lines of text: device, cells, what the scopes mean."""
    protocol = record.protocol
    warm_up = f"{protocol.warmup_s:g} s" if protocol.warmup_s else f"{protocol.warmup_runs} runs"
    with_network = any(cell.network for cell in record.cells)
    with_streams = any(cell.streams > 1 or cell.sharing for cell in record.cells)
    return [
        f"{record.device.name} ({record.device.id}), {record.model}"
        + ("" if record.trained else " (untrained weights: times hold, labels mean nothing)"),
        f"protocol {protocol.name}: {warm_up} warm-up, then at least {protocol.min_runs} runs and "
        f"{protocol.min_s:g} s",
        "",
        *_cells(record.cells),
        "",
        SCOPES,
        *([NETWORK] if with_network else []),
        *([STREAMS] if with_streams else []),
        *_ratios(record.cells),
        *_films(record.cells),
    ]


def _cells(cells: Sequence[Cell]) -> list[str]:
    extra = {
        "streams": [str(cell.streams) for cell in cells],
        "slowest p99": [_p99(cell.slowest_stream) for cell in cells],
        "one engine": [cell.sharing.limits if cell.sharing else "-" for cell in cells],
        "fill": [f"{cell.sharing.mean_fill:.0%}" if cell.sharing else "-" for cell in cells],
        "waited p50": [_ms(cell.sharing.waited) if cell.sharing else "-" for cell in cells],
        "waited p99": [_p99(cell.sharing.waited) if cell.sharing else "-" for cell in cells],
        "network p50": [_ms(cell.network) for cell in cells],
        "cpu p50": [_ms(cell.host_to_labels_cpu) for cell in cells],
    }
    shown = {name: values for name, values in extra.items() if set(values) - {"-", "1"}}
    rows = [
        [*_row(cell), *(values[index] for values in shown.values())]
        for index, cell in enumerate(cells)
    ]
    return columns([*_HEAD, *shown], rows)


def _row(cell: Cell) -> list[str]:
    stats = cell.host_to_labels
    agreement = "-" if cell.label_agreement is None else floored_percent(cell.label_agreement)
    return [
        f"{cell.peer} ({cell.engine})" if cell.peer else cell.engine,
        cell.precision,
        str(cell.size),
        str(cell.batch),
        "default" if cell.threads is None else str(cell.threads),
        cell.tail,
        _ms(cell.model),
        *(_number(ms) for ms in (stats.p50_ms, stats.p90_ms, stats.p95_ms, stats.p99_ms)),
        f"{stats.cov:.3f}",
        _number(cell.fps_host_to_labels),
        f"WRONG {agreement}" if cell.verdict == "wrong" else agreement,
    ]


def _ratios(cells: Sequence[Cell]) -> list[str]:
    """Times of an interleaved run against the first cell of the same size and batch."""
    rows = []
    for cell in cells:
        base = next(c for c in cells if (c.size, c.batch) == (cell.size, cell.batch))
        if base is cell or not cell.rounds_ms:
            continue
        row = [cell.title, str(cell.size), base.title]
        rows.append(row + [_spread(cell, base, scope) for scope in ("host_to_labels", "network")])
    if not rows:
        return []
    head = ["time of", "size", "over that of", "host_to_labels", "network"]
    return [
        "",
        "ratios, measured in turn: median over rounds (10th to 90th percentile); above 1: slower",
        *columns(head, rows),
    ]


def _spread(cell: Cell, base: Cell, scope: str) -> str:
    from fasterseg.bench.interleave import ratio

    if scope not in cell.rounds_ms or scope not in base.rounds_ms:
        return "-"
    return ratio_text(ratio(cell.rounds_ms[scope], base.rounds_ms[scope]))


def ratio_text(ratio: Ratio) -> str:
    """`1.352 (1.340 to 1.371)`."""
    return f"{ratio.p50:.3f} ({ratio.p10:.3f} to {ratio.p90:.3f})"


def _films(cells: Sequence[Cell]) -> list[str]:
    rows = []
    for cell in cells:
        film = cell.end_to_end
        if film is not None:
            stages = [_number(stats.p50_ms) for stats in film.stages.values()]
            row = [cell.title, str(cell.size), f"{film.source} {film.source_size}", film.output]
            rows.append([*row, str(film.frames), f"{film.fps:.1f}", *stages, film.bound_by])
            names = list(film.stages)
    if not rows:
        return []
    head = ["engine", "size", "video", "output", "frames", "end-to-end fps", *names, "bound by"]
    return ["", *columns(head, rows), END_TO_END]


def ratio_table(ratios: Sequence[CellRatio]) -> list[str]:
    """Two records side by side."""
    return columns(_RATIO_HEAD, [_ratio_row(ratio) for ratio in ratios])


def _ratio_row(ratio: CellRatio) -> list[str]:
    old, new = ratio.before, ratio.after
    return [
        f"{new.peer} ({new.engine})" if new.peer else new.engine,
        new.precision,
        str(new.size),
        str(new.batch),
        _ms(old.model),
        _ms(new.model),
        *_bounds(ratio.model),
        _ms(old.host_to_labels),
        _ms(new.host_to_labels),
        *_bounds(ratio.host_to_labels),
    ]


def cpu_table(ratios: Sequence[CellRatio]) -> list[str]:
    """CPU times of two records side by side; nothing where one has none."""
    rows = [
        [r.after.title, str(r.after.size), _ms(r.before.host_to_labels_cpu),
         _ms(r.after.host_to_labels_cpu), *_bounds(r.cpu)]
        for r in ratios
        if r.cpu is not None
    ]  # fmt: skip
    if not rows:
        return []
    return ["", *columns(["engine", "size", "cpu A", "cpu B", "B/A", "(spread)"], rows)]


def _bounds(spread: RatioSpread | None) -> list[str]:
    if spread is None:
        return ["-", "-"]
    return [f"{spread.p50:.3f}", f"({spread.low:.3f}-{spread.high:.3f})"]


def _ms(stats: LatencyStats | None) -> str:
    return "-" if stats is None else _number(stats.p50_ms)


def _p99(stats: LatencyStats | None) -> str:
    return "-" if stats is None else _number(stats.p99_ms)


def _number(value: float) -> str:
    """Four significant digits, without exponent."""
    digits = 3 if value < 10 else 2 if value < 100 else 1 if value < 1000 else 0
    return f"{value:.{digits}f}"


def floored_percent(share: float) -> str:
    """Percent with three digits, rounded down: 100.000% means every pixel."""
    return f"{math.floor(share * 1e5) / 1e3:.3f}%"


def columns(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of left-aligned columns under a head."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (head, *rows)
    ]
