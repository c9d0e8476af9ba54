"""Our int8 graph against the one that NNCF makes of the same network, both run by OpenVINO.

    pip install nncf openvino
    python benchmarks/compare_nncf.py [--model fasterseg-camvid] [--size 512x1024] [-o record.json]

Both begin at uint8 frames and end at logits at 1/8: the tail is no quantiser's work. NNCF gets the
fp32 graph, its mixed preset and rendered frames to calibrate on. The two, and fp32 beside them, are
run in turn on one thread; what counts is the CPU time of the process, round by round.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fasterseg.bench import device as machine
from fasterseg.bench.engines import render_frames
from fasterseg.bench.interleave import interleave, ratio
from fasterseg.bench.records import current_commit, now
from fasterseg.bench.timing import CallLane, TimingProtocol
from fasterseg.cache import write_atomic
from fasterseg.graph.emit import EmitOptions
from fasterseg.runtime.model import resolve_model
from fasterseg.runtime.store import onnx_bytes
from fasterseg.types import Precision, Size

GOAL: Final = 0.95
"""Share of the speed of NNCF's graph that ours has to reach."""

CALIBRATION: Final = 32
CHECKED: Final = 8

Run = Callable[[NDArray[np.uint8]], NDArray[np.float32]]


def main(arguments: Sequence[str] | None = None) -> int:
    """Quantise, run in turn, and say which is faster and which keeps more labels."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", default="fasterseg-camvid", help="with activation ranges")
    parser.add_argument("--size", default="512x1024", help="HxW")
    parser.add_argument("--rounds", type=int, default=20, help="of three runs each")
    parser.add_argument("-o", "--output", type=Path, help="write the record here")
    given = parser.parse_args(arguments)
    size = Size.parse(given.size)
    frames = render_frames(size, 1, CALIBRATION + CHECKED)
    models = _models(given.model, size, frames[:CALIBRATION])
    runs = {name: _compiled(model, name) for name, model in models.items()}
    result = {
        "agreement": _agreement(runs, frames[CALIBRATION:]),
        **_timed(runs, frames[CALIBRATION:], given.rounds),
    }
    print("\n".join(_lines(result)))
    if given.output:
        record = {
            "made": now(),
            "commit": current_commit(),
            "device": machine.detect(["openvino", "nncf"]).to_json(),
            "model": given.model,
            "size": str(size),
            "rounds": given.rounds,
            **result,
        }
        write_atomic(given.output, (json.dumps(record, indent=1) + "\n").encode())
    return 0 if result["speed_of_ours"] >= GOAL else 6


def _models(name: str, size: Size, calibration: Sequence[NDArray[np.uint8]]) -> dict[str, Any]:
    import nncf
    import openvino

    core = openvino.Core()
    model = resolve_model(name)

    def read(precision: Precision) -> Any:
        options = EmitOptions(stage="logits8", precision=precision, inline=True)
        return core.read_model(onnx_bytes(model, size, options))

    quantized = nncf.quantize(
        read("fp32"),
        nncf.Dataset(calibration),
        preset=nncf.QuantizationPreset.MIXED,
        target_device=nncf.TargetDevice.CPU,
        subset_size=len(calibration),
    )
    return {"fp32": read("fp32"), "ours": read("int8"), "nncf": quantized}


def _compiled(model: Any, name: str) -> Run:
    import openvino

    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": 1,
        "INFERENCE_PRECISION_HINT": "f32",
    }
    compiled = openvino.Core().compile_model(model, "CPU", settings)
    given = compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
    if given != "f32":
        raise SystemExit(f"{name}: OpenVINO computes in {given}, not in f32")
    request = compiled.create_infer_request()

    def run(frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        request.infer([frames], share_inputs=True)
        logits: NDArray[np.float32] = request.get_output_tensor().data
        return logits

    return run


def _agreement(runs: Mapping[str, Run], frames: Sequence[NDArray[np.uint8]]) -> dict[str, float]:
    """Share of pixels at 1/8 with the label of fp32."""
    truth = [runs["fp32"](batch).argmax(1) for batch in frames]
    return {
        name: round(
            statistics.fmean(
                float((run(batch).argmax(1) == labels).mean())
                for batch, labels in zip(frames, truth, strict=True)
            ),
            5,
        )
        for name, run in runs.items()
        if name != "fp32"
    }


def _timed(
    runs: Mapping[str, Run], frames: Sequence[NDArray[np.uint8]], rounds: int
) -> dict[str, Any]:
    def lane(run: Run) -> CallLane:
        # CPU time alone: on one thread it hardly depends on who else is there.
        return CallLane(lambda i: run(frames[i % len(frames)]), clock=time.process_time_ns)

    protocol = TimingProtocol("comparison", warmup_runs=3, min_runs=3 * rounds)
    turns = dict(zip(runs, interleave([lane(run) for run in runs.values()], protocol), strict=True))
    against = ratio(turns["nncf"].rounds_ms, turns["ours"].rounds_ms)
    return {
        "cpu_ms": {
            name: {
                "p50": round(statistics.median(one.samples.wall_ms), 3),
                "min": round(min(one.samples.wall_ms), 3),
            }
            for name, one in turns.items()
        },
        "speed_of_ours": round(against.p50, 4),
        "speed_p10": round(against.p10, 4),
        "speed_p90": round(against.p90, 4),
    }


def _lines(result: Mapping[str, Any]) -> list[str]:
    lines = ["graph   CPU ms p50    min   labels as fp32"]
    for name, times in result["cpu_ms"].items():
        kept = result["agreement"].get(name)
        share = f"{kept:.2%}" if kept is not None else "-"
        lines.append(f"{name:6s}  {times['p50']:10.2f} {times['min']:6.2f}   {share}")
    spread = f"{result['speed_p10']:.3f} to {result['speed_p90']:.3f}"
    lines.append(
        f"ours runs at {result['speed_of_ours']:.3f} ({spread}) of the speed of NNCF's; the goal is "
        f"{GOAL:g}"
    )
    return lines


if __name__ == "__main__":
    sys.exit(main())
