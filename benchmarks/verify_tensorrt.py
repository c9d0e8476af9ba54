"""TensorRT on this machine, in one record: built, right and how fast.

    make verify-tensorrt                              # writes tensorrt-<gpu>-<date>.json
    make verify-tensorrt CAMVID=FOLDER                # and scores on CamVid's test split
    python benchmarks/verify_tensorrt.py --dry-run    # what would be done here, nothing is built

Builds the student and the shipped model, with and without our plugins, in fp32, fp16 and int8; holds
the labels of each against ONNX Runtime; times it (protocol `full`); with CAMVID also the mIoU beside
that of ONNX Runtime in fp32. Every step that fails is a line of the record, and the next one goes on.
Needs TensorRT (pip install 'fasterseg[tensorrt]') and an NVIDIA GPU; send the file it writes.

Its list of work, its checks of the machine and its record are tested; what it does with a GPU and
TensorRT was never run by the project, for want of a machine that has both.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import fasterseg
from fasterseg.bench.device import detect
from fasterseg.bench.records import current_commit, now
from fasterseg.cache import write_atomic
from fasterseg.errors import FastersegError, OutputExistsError
from fasterseg.graph.emit import EmitOptions
from fasterseg.registry import resolve
from fasterseg.runtime.base import ENGINES, Engine
from fasterseg.runtime.driver import Gpu, find_gpu
from fasterseg.runtime.model import resolve_model
from fasterseg.runtime.plan_files import BuildOptions, read_facts
from fasterseg.runtime.plan_store import Job, find_or_build_plan, plan_path
from fasterseg.runtime.select import EngineRequest, open_engine
from fasterseg.runtime.trt_surface import load_api
from fasterseg.runtime.trt_target import find_target
from fasterseg.types import DeviceInfo, Precision, Size

SCHEMA: Final = 1
SHIPPED: Final = "fasterseg-camvid"
SIZES: Final = {"fasterseg-student": Size(1024, 2048), SHIPPED: Size(360, 480)}
PRECISIONS: Final[tuple[Precision, ...]] = ("fp32", "fp16", "int8")
MIOU_LIMIT: Final = {"fp32": 0.1, "fp16": 0.1, "int8": 1.0}
"""Points of mIoU that an engine may lose against fp32 (ARCHITECTURE.md, parity)."""


@dataclass(frozen=True)
class Step:
    """One engine to verify.

    Attributes:
        model: its name.
        size: of the frames.
        precision: of the engine.
        plugins: "auto" or "off".
    """

    model: str
    size: Size
    precision: Precision
    plugins: str

    def to_json(self) -> dict[str, str]:
        """The fields as plain JSON values."""
        return {**dataclasses.asdict(self), "size": str(self.size)}


def note(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def steps(models: Sequence[str] = tuple(SIZES)) -> Iterator[Step]:
    """Everything there is to verify."""
    for model in models:
        for precision in PRECISIONS:
            for plugins in ("off", "auto"):
                yield Step(model, SIZES[model], precision, plugins)


def check_machine(backend: str) -> Gpu:
    """See that this machine can run it at all.

    Raises:
        EngineError: TensorRT, cuda-python or the GPU is missing; the message names the cure.
    """
    load_api(backend)
    resolve(ENGINES, "engine", backend).resolve_device("cuda")
    gpu = find_gpu()
    assert gpu is not None, "asked before"
    return gpu


def verify(
    step: Step, backend: str, gpu: Gpu, camvid: Path | None, expected: float | None
) -> dict[str, Any]:
    """One row of the record; a failure is its `error`."""
    row: dict[str, Any] = {**step.to_json(), "error": None}
    begin = time.perf_counter()
    job: Job | None = None
    try:
        job = make_job(step, backend, gpu)
        if step.plugins == "auto" and job.target.plugins is None:
            return {**row, "error": "skipped: no plugin library; make plugins builds it"}
        # Built afresh: how long that takes is part of the record.
        path = find_or_build_plan(job, note, rebuild=True, must_keep=True)
        assert isinstance(path, Path), "must be kept"
        row["engine"] = json.loads(read_facts(path).to_json())
        with closing(resolve(ENGINES, "engine", backend).open(path)) as engine:
            row["timing"] = timed(engine, step.size)
            row["captured"] = engine.captured
            if camvid is not None and step.model == SHIPPED:
                row["accuracy"] = scored(engine, camvid, step.precision, expected)
    except FastersegError as error:
        row["error"] = f"{type(error).__name__}: {error}"
        # One that was built and is wrong is worth its description too.
        if job is not None and plan_path(job).is_file():
            row["engine"] = json.loads(read_facts(plan_path(job)).to_json())
    return {**row, "seconds": round(time.perf_counter() - begin, 1)}


def make_job(step: Step, backend: str, gpu: Gpu) -> Job:
    """What is to be built for a step."""
    model = resolve_model(step.model)
    options = BuildOptions(plugins="off" if step.plugins == "off" else "auto")
    target = find_target(backend, step.precision, options, gpu, note)
    profile = "tensorrt" if step.precision == "int8" else "cpu"
    emit = EmitOptions(precision=step.precision, profile=profile)  # type: ignore[arg-type]
    return Job(model, step.size, emit, target, options)


def timed(engine: Engine, size: Size) -> dict[str, Any]:
    """Device clock and host clock, protocol `full`."""
    from fasterseg.bench.engines import render_frames
    from fasterseg.bench.scopes import bench_engine
    from fasterseg.bench.timing import FULL

    return bench_engine(engine, FULL, render_frames(size, 1)).to_json()


def scored(engine: Engine, root: Path, precision: str, expected: float | None) -> dict[str, Any]:
    """MIoU on CamVid's test split, beside ONNX Runtime's in fp32."""
    from fasterseg.bench.accuracy import score
    from fasterseg.datasets import dataset

    spec = dataset("camvid")
    report = score(engine, spec, "test", spec.pairs(root, "test")).to_json()
    found = {"miou": report["miou"], "reference_miou": expected}
    if expected is not None:
        found["passed"] = report["miou"] >= expected - MIOU_LIMIT[precision]
    return found


def reference_score(camvid: Path | None) -> float | None:
    """MIoU of the shipped model in ONNX Runtime, fp32, on the CPU."""
    if camvid is None:
        return None
    request = EngineRequest(SHIPPED, "onnxruntime", "fp32", "cpu", SIZES[SHIPPED])
    with closing(open_engine(request, SIZES[SHIPPED], note)) as engine:
        return float(scored(engine, camvid, "fp32", None)["miou"])


def record(
    backend: str, gpu: Gpu, device: DeviceInfo, rows: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """All rows with what they depend on."""
    return {
        "schema": SCHEMA,
        "kind": "tensorrt-verification",
        "created": now(),
        "commit": current_commit(),
        "fasterseg": fasterseg.__version__,
        "backend": backend,
        "version": load_api(backend).__version__,
        "gpu": {"name": gpu.name, "arch": gpu.arch, "cuda": gpu.cuda},
        "device": device.to_json(),
        "rows": list(rows),
    }


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--engine", choices=("tensorrt", "tensorrt-rtx"), default="tensorrt")
    parser.add_argument("--model", action="append", choices=tuple(SIZES), help="only this one")
    parser.add_argument("--camvid", type=Path, help="CamVid's folder: adds mIoU")
    parser.add_argument("--out", type=Path, help="the record's file")
    parser.add_argument(
        "--dry-run", action="store_true", help="list the work as JSON; build nothing"
    )
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    chosen = parse(arguments)
    work = list(steps(chosen.model or tuple(SIZES)))
    if chosen.dry_run:
        print(json.dumps([step.to_json() for step in work], indent=2))
        return 0
    try:
        gpu = check_machine(chosen.engine)
        device = detect((chosen.engine,), "cuda")
        slug = "-".join(gpu.name.lower().split())
        out = chosen.out or Path(f"{chosen.engine}-{slug}-{now()[:10]}.json")
        if out.exists():
            raise OutputExistsError(f"{out} exists; name another with --out")
        expected = reference_score(chosen.camvid)
    except FastersegError as error:
        note(f"error: {error}")
        return error.exit_code
    rows = []
    for number, step in enumerate(work, start=1):
        note(
            f"[{number}/{len(work)}] {step.model} {step.size} {step.precision}, plugins {step.plugins}"
        )
        rows.append(verify(step, chosen.engine, gpu, chosen.camvid, expected))
        if rows[-1]["error"]:
            note(f"  {rows[-1]['error']}")
        # After every step: a crash of the driver must not cost what is known.
        text = json.dumps(record(chosen.engine, gpu, device, rows), indent=1) + "\n"
        write_atomic(out, text.encode())
    print(out)
    wrong = [row for row in rows if row["error"] and not row["error"].startswith("skipped")]
    wrong += [row for row in rows if row.get("accuracy", {}).get("passed") is False]
    return 5 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
