"""Steps of `gpu.py` around the network: the machine, the kernels, tests, cold start, the table."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

import torch
from gpu_device import Device, ceilings, launch_costs
from gpu_job import ROOT, Job
from gpu_run import Keeper, State, UnfinishedError

from fasterseg.bench.device import detect
from fasterseg.bench.snippets import SNIPPETS
from fasterseg.bench.tables import TableFile
from fasterseg.errors import BuildError, FastersegError
from fasterseg.runtime.onnxrt import provides
from fasterseg.runtime.plugins import open_kernels

TABLE: Final = "table.json"
EVIDENCE: Final = "evidence"
COLD_RUNS: Final = 3
CHECKS: Final = ("kernels-gpu", "torch-gpu", "harness-gpu")

_QUERY: Final = (
    "name", "driver_version", "compute_cap", "pstate", "clocks.sm", "clocks.mem", "clocks.max.sm",
    "clocks.max.mem", "power.draw", "power.limit", "temperature.gpu", "memory.total", "memory.used",
    "persistence_mode", "compute_mode", "ecc.mode.current", "mig.mode.current",
)  # fmt: skip
_OPS: Final = "from fasterseg.cli.bench import run; run()"


def environment(job: Job, keeper: Keeper, state: State) -> None:
    """The machine, its GPU, and what is installed."""
    about = detect(("torch", "onnx", "onnxruntime", "triton"), job.device)
    keeper.keep(device=about.to_json(), gpu=query())
    facts: dict[str, Any] = {"torch": torch.__version__, "cuda": torch.version.cuda}
    if job.device == "cuda":
        own = torch.cuda.get_device_properties(0)
        facts |= {
            "cudnn": torch.backends.cudnn.version(),
            "name": own.name,
            "multiprocessors": own.multi_processor_count,
            "l2_mb": getattr(own, "L2_cache_size", 0) / 1e6,
            "memory_mb": own.total_memory / 1e6,
        }
    keeper.keep(torch=facts, onnxruntime_on_cuda=provides("cuda"))
    tools = ("nvcc", "cmake", "ncu", "compute-sanitizer")
    keeper.keep(tools={name: shutil.which(name) is not None for name in tools})
    pack = job.packed
    if pack is None:
        keeper.keep(pack="none: rendered frames, no mIoU; make gpu-pack makes one")
    else:
        keeper.keep(pack={"files": len(pack.files), "frames": len(pack.frames())})


def query() -> dict[str, str] | None:
    """What nvidia-smi tells of the GPU, None without it."""
    command = ["nvidia-smi", f"--query-gpu={','.join(_QUERY)}", "--format=csv,noheader"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    values = [value.strip() for value in said.stdout.splitlines()[0].split(",")]
    return dict(zip(_QUERY, values, strict=False))


def build(job: Job, keeper: Keeper, state: State) -> None:
    """Our CUDA kernels for this GPU; a tree where they are up to date builds nothing."""
    major, minor = torch.cuda.get_device_capability()
    begin = time.perf_counter()
    command = ["make", "plugins", f"CUDA_ARCHITECTURES={major}{minor}"]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    print(said.stdout, said.stderr)
    if said.returncode:
        raise BuildError(f"make plugins failed: {said.stderr.strip()[-500:]}")
    library = open_kernels()
    keeper.keep(
        seconds=time.perf_counter() - begin,
        library=library.path.relative_to(ROOT),
        bytes=library.path.stat().st_size,
    )


def limits(job: Job, keeper: Keeper, state: State) -> None:
    """The ceilings that floors are made of, and what a launch costs."""
    device = Device.of(job.device)
    keeper.keep(ceilings=ceilings(device, tiny=job.trial))
    keeper.keep(launches=launch_costs(device))


def tests(job: Job, keeper: Keeper, state: State) -> None:
    """The tests that need a GPU: kernels with a record of evidence, then all others."""
    if not job.trial:
        evidence = [sys.executable, "benchmarks/evidence.py", "run", *CHECKS]
        folder = ("--folder", str(job.folder / EVIDENCE))
        keeper.keep(evidence=call([*evidence, *folder, "--commit", job.commit]))
    pytest = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    keeper.keep(all=call([*pytest, "-m", "gpu and not bench", "tests/gpu"]))
    if not job.trial:
        keeper.keep(times=call([*pytest, "-s", "-m", "gpu and bench", "tests/gpu"]))
    wrong = [name for name, one in keeper.found.items() if one["code"] not in (0, 5)]
    if wrong:
        raise FastersegError(f"tests failed: {', '.join(wrong)}")


def sanitizer(job: Job, keeper: Keeper, state: State) -> None:
    """The kernels' tests under compute-sanitizer, which looks at every access."""
    tool = shutil.which("compute-sanitizer")
    if tool is None:
        keeper.keep(skipped="no compute-sanitizer: it comes with the CUDA toolkit")
        return
    pytest = [sys.executable, "-m", "pytest", "-q", "-x", "-m", "gpu and not bench"]
    found = call([tool, "--error-exitcode", "1", *pytest, "tests/gpu/test_kernels.py"])
    keeper.keep(sanitizer=found)
    if found["code"]:
        raise FastersegError("compute-sanitizer found an error; see the log")


def call(command: Sequence[str], env: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Run a program in the tree; its exit code and last line. What it says goes to the log."""
    begin = time.perf_counter()
    said = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, **(env or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    print(said.stdout, flush=True)
    lines = said.stdout.strip().splitlines()
    return {
        "code": said.returncode,
        "said": lines[-1] if lines else "",
        "seconds": time.perf_counter() - begin,
    }


def cold(job: Job, keeper: Keeper, state: State) -> None:
    """From a fresh process to the first labels: the very first time, then with a warm cache."""
    rows: list[dict[str, Any]] = []
    case = job.cases[0]
    child = [sys.executable, str(ROOT / "benchmarks" / "gpu_cold.py"), job.model]
    with tempfile.TemporaryDirectory() as cache:
        for number in range(2 if job.trial else COLD_RUNS):
            begin = time.perf_counter()
            said = subprocess.run(
                [*child, job.precisions[0], job.device, str(case.size)],
                cwd=ROOT,
                env={**os.environ, "FASTERSEG_CACHE": cache},
                capture_output=True,
                text=True,
                check=False,
            )
            total_s = time.perf_counter() - begin
            if said.returncode:
                raise FastersegError(said.stderr.strip()[-500:])
            times = json.loads(said.stdout.splitlines()[-1])
            rows.append({"cache": "warm" if number else "empty", "process_s": total_s, **times})
            keeper.keep(size=case.size, runs=rows)


def table(job: Job, keeper: Keeper, state: State) -> None:
    """The latency table of this GPU through the same engine, then its calibration.

    Raises:
        UnfinishedError: rows or networks are left; the next run goes on with them.
    """
    path = job.folder / TABLE
    end = time.monotonic() + job.seconds - 10
    ops = [sys.executable, "-c", _OPS]
    if job.trial:
        engine = "torch" if "torch" in SNIPPETS else "onnxruntime"
        asked = ["--engine", engine, "--device", "cpu", "--size", "64x128", "--dry-run"]
        keeper.keep(ops=call([*ops, "ops", *asked, "--table", str(path)]))
        return
    minutes = f"{max(0.1, (end - time.monotonic()) / 60):.2f}"
    asked = ["--engine", "torch", "--device", "cuda", "--size", str(job.cases[0].size)]
    keeper.keep(ops=call([*ops, "ops", *asked, "--table", str(path), "--limit-minutes", minutes]))
    _check(keeper.found["ops"])
    file = TableFile.load(path)
    assert file.space is not None
    left = len(file.missing(file.space.specs(file.size)))
    keeper.keep(rows=len(file.rows), rows_left=left)
    if left:
        raise UnfinishedError(f"{left} rows are left")
    minutes = f"{max(0.1, (end - time.monotonic()) / 60):.2f}"
    calibrate = [*ops, "calibrate", "--table", str(path), "--limit-minutes", minutes]
    keeper.keep(calibrate=call(calibrate))
    report = TableFile.load(path).report
    keeper.keep(report=report)
    if report is None:
        _check(keeper.found["calibrate"])
        raise UnfinishedError("networks of the calibration are left")


def _check(found: Mapping[str, Any]) -> None:
    if found["code"]:
        raise FastersegError(f"exit code {found['code']}: {found['said']}")
