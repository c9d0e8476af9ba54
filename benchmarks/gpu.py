"""Everything there is to know about this GPU, in one command that can be gone on with.

    make gpu                                   # all steps, at most 9 minutes; again: what is left
    make gpu STEPS=parity,bench                # some of them
    make gpu OUT=FOLDER COMMIT=1234abc         # results to a folder; in a tree without git: its commit
    python benchmarks/gpu.py --device cpu      # a trial: every step that a CPU can do, small; no records
    python benchmarks/gpu.py keep FOLDER       # put what a run found where records are kept

Needs a plain PyTorch image (torch, numpy, cv2, onnx, onnxruntime, typer, safetensors, pytest, nvcc);
nothing is installed. Each step is a process of its own with a time budget. `run.json` holds what they
found, and says which are done; the last lines printed are its table. `make gpu-pack` makes the folder
with real frames and CamVid; without it frames are rendered and mIoU is not scored.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from gpu_job import ROOT, Job, source_digest
from gpu_pack import FOLDER as PACK
from gpu_report import keep, lines, write_records
from gpu_run import (
    FILE,
    LOG,
    Ended,
    Keeper,
    State,
    Step,
    UnfinishedError,
    chosen,
    in_process,
    run_steps,
    say,
)

from fasterseg.bench.device import detect
from fasterseg.bench.records import current_commit
from fasterseg.errors import FastersegError

OUT: Final = ROOT / "build" / "gpu"
TRIAL_OUT: Final = ROOT / "build" / "gpu-trial"
CACHE: Final = ROOT / "build" / "gpu-cache"
LIMIT_S: Final = 530.0
MODEL: Final = "fasterseg-camvid"
CUDA_ONLY: Final = ("build", "sanitizer")
_PATIENCE: Final = 10
_UNFINISHED: Final = 75
"""Exit code of a step that goes on in the next run."""

WORK: Final[Mapping[str, str]] = {
    "bench": "gpu_bench:bench",
    "build": "gpu_steps:build",
    "cold": "gpu_steps:cold",
    "compile": "gpu_bench:compile_ahead",
    "environment": "gpu_steps:environment",
    "layers": "gpu_layers:layers",
    "limits": "gpu_steps:limits",
    "parity": "gpu_parity:parity",
    "sanitizer": "gpu_steps:sanitizer",
    "streams": "gpu_layers:streams",
    "table": "gpu_steps:table",
    "tests": "gpu_steps:tests",
}
"""Step (of cases: its first word) -> what does it, in the process of the step."""


def steps_of(job: Job) -> list[Step]:
    """Every step, those that matter most first."""
    measured = []
    for number, case in enumerate(job.cases):
        # Not timed in a trial, and slow there; once shows that it runs.
        if number == 0 or not job.trial:
            about = "torch.compile, into its cache"
            measured.append(Step(f"compile-{case.name}", about, 120, 45))
        about = "all engines in turn, on frames that change"
        measured.append(Step(f"bench-{case.name}", about, 150, 40))
    steps = [
        Step("environment", "the machine and what is installed", 30),
        Step("build", "our CUDA kernels for this GPU", 120, 15),
        Step("parity", "every engine against the CPU reference; mIoU", 120, 30),
        Step("limits", "ceilings of arithmetic and memory; cost of a launch", 45, 10),
        *measured,
        Step("layers", "each launch alone, beside its floor", 45, 15),
        Step("cold", "from a fresh process to the first labels", 60, 20),
        Step("streams", "1, 4 and 16 streams", 60, 25),
        Step("tests", "all tests that need a GPU", 150, 40),
        Step("table", "latency table of this GPU, and its calibration", 500, 60),
        Step("sanitizer", "kernels under compute-sanitizer", 300, 90),
    ]
    if not job.trial:
        return steps
    # Budgets are for a GPU that is lent; a slow CPU may take its time.
    return [
        replace(step, seconds=_PATIENCE * step.seconds, least_s=1.0)
        for step in steps
        if step.name not in CUDA_ONLY
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    given = parser().parse_args(arguments)
    try:
        if given.command == "keep":
            print("\n".join(str(path) for path in keep(given.folder, ROOT / "benchmarks")))
            return 0
        if given.worker is not None:
            return work(given.worker, Job.from_json(given.job), given.result)
        return whole(given)
    except FastersegError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code


def parser() -> argparse.ArgumentParser:
    """The command line; a process of a step gets `--worker`, `--job` and `--result`."""
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("command", nargs="?", choices=("run", "keep"), default="run")
    made.add_argument("folder", nargs="?", type=Path, help="results; default: build/gpu")
    made.add_argument("--steps", default="", help="names, separated by commas; default: all")
    made.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu: a trial")
    made.add_argument("--pack", type=Path, help=f"default: {PACK}, where it is there")
    made.add_argument("--model", default=MODEL, help="whose weights are run")
    made.add_argument("--protocol", choices=("full", "quick", "row"), help="at most; default: full")
    made.add_argument("--limit-s", type=float, help=f"for the whole run; default: {LIMIT_S:.0f}")
    made.add_argument("--commit", help="of this tree, where it is no checkout")
    made.add_argument("--fresh", action="store_true", help="run finished steps again")
    for name in ("--worker", "--job"):
        made.add_argument(name, help=argparse.SUPPRESS)
    made.add_argument("--result", type=Path, help=argparse.SUPPRESS)
    return made


def whole(given: argparse.Namespace) -> int:
    """Run the steps that are left, then print the table; 1 where one failed."""
    job = job_of(given)
    job.folder.mkdir(parents=True, exist_ok=True)
    state = State.load(job.folder / FILE)
    state.begin(facts_of(job))
    names = chosen(steps_of(job), given.steps)
    if given.fresh:
        for step in names:
            state.steps.pop(step.name, None)
    state.save()
    set_environment(job)
    try:
        limit_s = given.limit_s or LIMIT_S * (_PATIENCE if job.trial else 1)
        run_steps(names, state, partial(run_one, job), limit_s, on_note=say)
    finally:
        if not job.trial:
            write_records(state, job.folder)
        print("\n".join(["", *lines(state)]), flush=True)
    return int(any(state.steps[step.name]["outcome"] == "failed" for step in names))


def job_of(given: argparse.Namespace) -> Job:
    """What is to be run."""
    is_trial = given.device == "cpu"
    packed = ROOT / PACK
    pack = given.pack or (packed if packed.is_dir() else None)
    return Job(
        device=given.device,
        folder=(given.folder or (TRIAL_OUT if is_trial else OUT)).resolve(),
        pack=None if pack is None else pack.resolve(),
        model=given.model,
        protocol=given.protocol or ("row" if is_trial else "full"),
        commit=given.commit or current_commit(ROOT),
    )


def facts_of(job: Job) -> dict[str, Any]:
    """What all results of a run have in common.

    Raises:
        DeviceUnavailableError: there is no GPU to speak of.
    """
    return {
        "trial": job.trial,
        "commit": job.commit,
        "source": source_digest(),
        "device": detect((), job.device).id,
        "model": job.model,
    }


def set_environment(job: Job) -> None:
    """What the processes of the steps find in their environment."""
    known = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), *([known] if known else [])])
    os.environ["PYTHONUNBUFFERED"] = "1"
    # Our own caches: what a user's hold must neither help nor be touched.
    os.environ["FASTERSEG_CACHE"] = str(CACHE / "fasterseg")
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(CACHE / "inductor")
    if job.pack is not None:
        os.environ.setdefault("FASTERSEG_SHARED", str(job.pack / "shared"))


def run_one(job: Job, step: Step, seconds: float) -> Ended:
    """A step in a process of its own."""
    own = replace(job, seconds=seconds)
    command = [sys.executable, str(Path(__file__)), "--worker", step.name, "--job", own.to_json()]
    ended = in_process(command, job.folder / ".step.json", seconds, job.folder / LOG)
    if ended.outcome == "failed" and (ended.error or "").startswith(f"exit code {_UNFINISHED}\n"):
        last = (ended.error or "").splitlines()[-1]
        return replace(ended, outcome="out of time", error=last)
    return ended


def work(name: str, job: Job, result: Path) -> int:
    """The process of a step: does it, and keeps what it finds in a file."""
    kind, _, case_name = name.partition("-")
    module, _, function = WORK[kind].partition(":")
    do: Callable[..., None] = getattr(import_module(module), function)
    state, keeper = State.load(job.folder / FILE), Keeper(result)
    try:
        if case_name:
            case = next(case for case in job.cases if case.name == case_name)
            do(job, case, keeper, state)
        else:
            do(job, keeper, state)
    except UnfinishedError as error:
        print(f"goes on in the next run: {error}", flush=True)
        return _UNFINISHED
    except FastersegError as error:
        print(f"{type(error).__name__}: {error}", flush=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
