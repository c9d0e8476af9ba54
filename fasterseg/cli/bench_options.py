"""Options of `fasterseg-bench` itself."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

DEFAULT_ENGINES = ("onnxruntime",)
DEFAULT_SIZES = ("512x1024", "768x1536", "1024x2048")
RESULTS = Path("benchmarks/results")

EnginesOption = Annotated[
    list[str] | None,
    typer.Option(
        "--engine",
        metavar="NAME",
        help="auto, a backend (onnxruntime, openvino, tensorrt, tensorrt-rtx, torch) or an engine "
        "file (.onnx, .engine); give it again for more. "
        f"Default: {', '.join(DEFAULT_ENGINES)}.",
    ),
]
SizesOption = Annotated[
    list[str] | None,
    typer.Option(
        "--size",
        metavar="HxW",
        help="Frame size in pixels, height first; give it again for more. "
        f"Default: {', '.join(DEFAULT_SIZES)}; that of engine files.",
    ),
]
BatchOption = Annotated[
    str, typer.Option(metavar="N,...", help="Frames per call; several joined by commas.")
]
StreamsOption = Annotated[
    str,
    typer.Option(
        metavar="N,...",
        help="Calls at the same time, each on an engine of its own or all on one (--share); "
        "several joined by commas.",
    ),
]
ShareOption = Annotated[
    bool,
    typer.Option(
        "--share",
        help="All --streams on one engine: frames that come at the same time are run as one batch.",
    ),
]
MaxBatchOption = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="N",
        help="With --share: frames in a batch at most. Default: 8, or the streams where fewer.",
    ),
]
MaxDelayOption = Annotated[
    float | None,
    typer.Option(
        min=0.0,
        max=60_000.0,
        metavar="MS",
        help="With --share: milliseconds a frame waits for those of other streams. Default: 5.",
    ),
]
PrecisionsOption = Annotated[
    str,
    typer.Option(
        metavar="TYPE,...",
        help="auto (fp32 on a CPU, fp16 on a GPU), fp32, fp16, bf16 (openvino; torch on a GPU) "
        "or int8; several joined by commas.",
    ),
]
TailsOption = Annotated[
    str,
    typer.Option(
        metavar="WHERE,...",
        help="Upsampling and argmax on a CPU: native (our kernel), graph, or auto (native where "
        "it is installed); several joined by commas.",
    ),
]
PeersOption = Annotated[
    list[str] | None,
    typer.Option(
        "--peer",
        metavar="FILE[:NAME]",
        help="Another network's ONNX, a picture (N, 3, H, W) in and logits out; it is measured "
        "behind the same boundary and as it is; give it again for more.",
    ),
]
InterleaveOption = Annotated[
    bool,
    typer.Option(
        "--interleave",
        help="All engines and sizes open at once and run in turn: ratios hold on an unsteady "
        "machine.",
    ),
]
VideoOption = Annotated[
    str | None,
    typer.Option(metavar="VIDEO", help="Also end to end: this encoded video through each engine."),
]
VideoOutputOption = Annotated[
    str, typer.Option(metavar="KIND", help="What --video writes: overlay, classmap or none.")
]
VideoLimitOption = Annotated[
    int | None, typer.Option(min=1, metavar="N", help="Frames of --video; default: all.")
]
PerLayerOption = Annotated[
    bool,
    typer.Option("--per-layer", help="Also the time of every operator (ONNX Runtime on the CPU)."),
]
ProtocolOption = Annotated[
    str,
    typer.Option(
        help="full (2 s warm-up, >= 200 runs and 3 s), quick (1 s, >= 20 runs and 2 s) or row "
        "(3 runs, >= 20 runs and 0.3 s). Stored; records of two protocols never compare."
    ),
]
CpuTimeOption = Annotated[
    bool,
    typer.Option(
        "--cpu-time",
        help="Also the CPU time of the whole process per run, over all threads: steady on a "
        "shared machine, above all with --threads 1.",
    ),
]
SaveOption = Annotated[
    bool,
    typer.Option("--save", help=f"Append a record to {RESULTS}/<device>/ of the current folder."),
]
