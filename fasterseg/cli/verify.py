"""`fasterseg verify`: two engines on the same frames, label by label and layer by layer."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from fasterseg.cli.options import (
    DebugOption,
    DeviceOption,
    JsonOption,
    LogFormat,
    LogFormatOption,
    ModelOption,
    PrecisionOption,
    SizeOption,
    TailOption,
    ThreadsOption,
    for_machines,
    note,
    parse_size,
    write_json,
)

LAYER_FRAMES: Final = 8
"""Frames that layers are compared on, the first ones; they are kept in memory."""

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray

    from fasterseg.deploy.layers import LayerReport, Side
    from fasterseg.deploy.parity import Agreement
    from fasterseg.runtime.base import Engine
    from fasterseg.runtime.select import EngineRequest
    from fasterseg.types import Size


def verify(
    reference: Annotated[
        str, typer.Argument(metavar="A", help="Reference: an engine file or a backend's name.")
    ],
    candidate: Annotated[
        str, typer.Argument(metavar="B", help="Candidate: an engine file or a backend's name.")
    ],
    model: ModelOption = "fasterseg-camvid",
    size: SizeOption = None,
    precision: PrecisionOption = "auto",
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    tail: TailOption = "auto",
    frames: Annotated[
        str | None,
        typer.Option(
            help="Image, folder, glob or video to compare on; default: 8 rendered streets."
        ),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most this many frames.")] = 64,
    threshold: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            max=1.0,
            help="Share of labels that must agree; default by B's precision: "
            "0.9999 (fp32), 0.999 (fp16, bf16), none (int8).",
        ),
    ] = None,
    layers: Annotated[
        bool,
        typer.Option(
            "--layers",
            help="Also compare what the two compute inside, and mark the first layer that "
            "diverges (ONNX graphs; the first 8 frames). The exit code stays that of the labels.",
        ),
    ] = False,
    json_: JsonOption = None,
    log_format: LogFormatOption = LogFormat.TEXT,
    debug: DebugOption = False,
) -> None:
    """Compare two engines label by label on the same frames; exit code 5 below the threshold.

    Backends run --model; A in fp32 with its tail in the graph (torch: on the CPU, where it is the
    reference), B in --precision with --tail. The verdict of an engine file B is kept beside it as
    FILE.parity.json.

    \b
    Examples:
      fasterseg verify torch onnxruntime --model fasterseg-camvid
      fasterseg verify torch engine.onnx --frames drive.mp4
      fasterseg verify a.onnx b.onnx --json -
      fasterseg verify onnxruntime onnxruntime --precision int8 --layers
      fasterseg verify onnxruntime openvino --precision bf16 --tail native
    """  # noqa: D301 - \b is Click's mark for a block that must not be wrapped
    from fasterseg.deploy.parity import compare_engines
    from fasterseg.errors import ParityError

    if layers:
        _require_polygraphy()
    requests, pair = _open_pair(
        reference, candidate, model, parse_size(size), precision, device, threads, tail
    )
    try:
        sides = _sides(requests, pair) if layers else None
        size_at = pair[1].spec.size
        assert size_at is not None
        seen = _FirstKept(_frames(frames, limit, size_at), LAYER_FRAMES if layers else 0)
        report = compare_engines(*pair, seen, threshold)
        parting = _compare_layers(sides, seen.first) if sides else None
    finally:
        for engine in pair:
            engine.close()
    verdict = report.to_json()
    if json_ is not None:
        extra = {"layers": parting.to_json()} if parting else {}
        write_json(json_, json.dumps({**verdict, **extra}, indent=2))
    _print_agreement(report)
    if parting is not None:
        _print_layers(parting)
    if Path(candidate).is_file():
        write_json(f"{candidate}.parity.json", json.dumps(verdict, indent=2))
    if not report.passed:
        raise ParityError(
            f"{report.agreement:.4%} of the labels agree, {report.threshold:.4%} are demanded; "
            f"worst frame {report.worst_frame} ({report.worst_agreement:.4%})"
        )


def _open_pair(
    reference: str,
    candidate: str,
    model: str,
    size: Size | None,
    precision: str,
    device: str,
    threads: int | None,
    tail: str,
) -> tuple[tuple[EngineRequest, EngineRequest], tuple[Engine, Engine]]:
    """Both engines at one size: that of an engine file where there is one."""
    from fasterseg.runtime.select import FROM_PLAN, EngineRequest, engine_file, open_engine
    from fasterseg.runtime.tail import CHOOSING, GRAPH
    from fasterseg.types import Size

    source = Size(360, 640)
    a = EngineRequest(model, reference, "auto", device, size, threads=threads)
    b = EngineRequest(model, candidate, precision, device, size, threads=threads, tail=tail)
    if engine_file(a) is None:
        a = replace(a, precision="fp32", tail=GRAPH if reference in CHOOSING else "auto")
        if reference in FROM_PLAN:
            # On a GPU it rearranges the network, as the candidates do.
            a = replace(a, device="cpu")
        if engine_file(b) is not None:
            second = open_engine(b, source, note)
            return (a, b), (open_engine(replace(a, size=second.spec.size), source, note), second)
    first = open_engine(a, source, note)
    if engine_file(b) is None:
        b = replace(b, size=first.spec.size)
    return (a, b), (first, open_engine(b, source, note))


def _frames(source: str | None, limit: int, size: Size) -> Iterator[NDArray[np.uint8]]:
    """Frames to compare on: the user's, or rendered streets."""
    if source is None:
        from fasterseg.streets import images

        for image, _ in images(seed=0, count=min(limit, 8), size=size):
            yield image
        return
    from fasterseg.stream.sources import open_source
    from fasterseg.stream.sources_options import SourceOptions

    opened = open_source(source, SourceOptions(limit=limit))
    try:
        for frame in opened:
            yield frame.image
    finally:
        opened.close()


class _FirstKept:
    """Frames as they come, of which the first ones can be had again."""

    def __init__(self, frames: Iterator[NDArray[np.uint8]], count: int) -> None:
        self._frames = frames
        self._count = count
        self.first: list[NDArray[np.uint8]] = []

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        for frame in self._frames:
            if len(self.first) < self._count:
                self.first.append(frame.copy())
            yield frame


def _require_polygraphy() -> None:
    from fasterseg.errors import MissingExtraError

    if importlib.util.find_spec("polygraphy") is None:
        raise MissingExtraError(
            "--layers needs the package 'polygraphy', which is not installed. Install it: "
            "pip install polygraphy (the extra fasterseg[tensorrt] brings it too)"
        )


def _sides(
    requests: tuple[EngineRequest, EngineRequest], pair: tuple[Engine, Engine]
) -> tuple[Side, Side]:
    from fasterseg.deploy.layers import Side

    a, b = (Side.of(request, engine) for request, engine in zip(requests, pair, strict=True))
    return a, b


def _compare_layers(sides: tuple[Side, Side], frames: list[NDArray[np.uint8]]) -> LayerReport:
    from fasterseg.deploy.layers import compare_layers

    note(f"comparing layers on {len(frames)} frames")
    return compare_layers(*sides, frames)


def _print_agreement(report: Agreement) -> None:
    note(f"A  {report.reference}")
    note(f"B  {report.candidate}")
    note(f"{report.frames} frames at {report.size} (HxW)")
    for name, share in report.class_shares.items():
        iou = report.per_class_iou[name]
        shown = "absent" if iou is None else f"IoU {iou:.4f}"
        note(f"  {name:<14} {share:7.2%} of A   {shown}")
    if report.threshold > 0:
        verdict = "passed" if report.passed else "FAILED"
        judged = f"(threshold {report.threshold:.4%}): {verdict}"
    else:
        judged = "(not gated: int8 is judged by mIoU, fasterseg-bench accuracy)"
    note(
        f"{report.agreement:.4%} of the labels agree {judged}; worst frame "
        f"{report.worst_frame}: {report.worst_agreement:.4%}"
    )
    if not report.is_meaningful:
        note(
            f"note: only {report.meaningful_classes} classes hold 2 % of the pixels or more; with "
            "so few, agreement proves little. Compare on other frames or with trained weights"
        )


def _print_layers(report: LayerReport) -> None:
    """A row a layer, in the order of A's graph; the first that diverges has an arrow."""
    first = report.first
    if not for_machines():
        width = max(len(layer.name) for layer in report.layers)
        note(
            f"  {'layer':<{width}} {'op':<8} {'max error':>9} {'of peak':>9} {'rms':>9} {'SNR':>9}"
        )
        for layer in report.layers:
            mark = "->" if layer is first else " *" if report.diverges(layer) else "  "
            note(
                f"{mark}{layer.name:<{width}} {layer.op:<8} {layer.max_abs:9.3g} "
                f"{layer.relative_max:9.3g} {layer.relative_rms:9.3g} {layer.snr_db:6.1f} dB"
            )
    told = f"{len(report.layers)} layers, {len(report.unmatched)} of A without a like in B"
    limit = f"tolerance {report.tolerance:g} of a layer's rms"
    if first is None:
        note(f"{told}: none diverges ({limit})")
    else:
        count = sum(map(report.diverges, report.layers))
        note(f"{told}: {count} diverge ({limit}); the first is {first.name} ({first.op})")
