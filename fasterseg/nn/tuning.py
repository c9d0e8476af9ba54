"""The fastest variant of a network on this GPU: tried once, compared, timed, and remembered."""

from __future__ import annotations

import hashlib
import json
import os
import statistics
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray

import fasterseg
from fasterseg.arch.plan import Plan
from fasterseg.cache import entry_path
from fasterseg.errors import DeviceLostError, EngineError, UsageError
from fasterseg.nn.fused import Variant
from fasterseg.runtime.base import PIXEL_AGREEMENT
from fasterseg.runtime.choice import VARIABLE, Choice, fastest, remember, remembered
from fasterseg.runtime.driver import find_gpu
from fasterseg.runtime.kernels import KernelLibrary
from fasterseg.streets import images
from fasterseg.types import Precision, Size

WORTH: Final = 0.02
"""Share of time that another variant than the first must save."""

FRAMES: Final = 2
WARM_UPS: Final = 1
ROUNDS: Final = 7
RUNS: Final = 10
"""Runs of a variant before the next one's turn."""


class Trial(Protocol):
    """A variant ready to run, as it would be used: `nn.cuda_engine.CudaEngine`."""

    def run(self, frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """(N, H, W, 3) uint8 BGR -> (N, H, W) uint8 labels."""

    def time_on_device(self, iterations: int) -> Sequence[float]:
        """Milliseconds of each run by the GPU's clock, on the last frames."""

    def close(self) -> None:
        """Give everything back."""


@dataclass(frozen=True, slots=True)
class Question:
    """What there is to choose from.

    Attributes:
        variants: the first is taken where nothing is measured, and in doubt.
        open_one: opens a variant.
        precision: of all of them.
        size: of the frames.
        batch: frames per call.
        facts: all that the answer depends on beside the variants and the three above (`facts`).
        title: of the network, for people.
    """

    variants: Sequence[Variant]
    open_one: Callable[[Variant], Trial]
    precision: Precision
    size: Size
    batch: int
    facts: Mapping[str, Any]
    title: str


def candidates(
    precision: Precision, has_kernels: bool, *, branches: int = 2, compiled: bool = False
) -> list[Variant]:
    """The variants worth trying.

    Args:
        precision: "fp16", "bf16" or "fp32".
        has_kernels: whether our kernels are there.
        branches: of the network; a single one has nothing to run side by side.
        compiled: also `torch.compile`, which takes minutes; not in fp32, where its
            kernels are not held to exactness.

    Returns:
        The one that is taken unmeasured first.
    """
    lanes = (2, 1) if branches > 1 else (1,)
    # Without cuDNN's search is no candidate: what one network has searched, all of a thread use.
    if has_kernels and precision == "fp16":
        found = [Variant(lanes=count, zoomed=zoomed) for zoomed in (False, True) for count in lanes]
        found.append(Variant(lanes=lanes[0], resize="torch"))
    else:
        found = [Variant(lanes=count, resize="torch") for count in lanes]
    if compiled and precision != "fp32":
        found.append(Variant(resize="torch", compiled=True))
    return found


def facts(plan: Plan, kernels: KernelLibrary | None) -> dict[str, Any]:
    """What a choice depends on: the network, this GPU with its software, our kernels.

    Args:
        plan: the network.
        kernels: None without.
    """
    gpu, cudnn = find_gpu(), cast("Any", torch.backends.cudnn)
    return {
        "network": plan.genotype.digest(),
        "gpu": None if gpu is None else asdict(gpu),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "cudnn": cudnn.version(),
        "kernels": kernels and hashlib.sha256(kernels.path.read_bytes()).hexdigest(),
        "fasterseg": fasterseg.__version__,
    }


def choose(question: Question, on_note: Callable[[str], None]) -> Variant:
    """Give the variant to take, measured now or before, and say why.

    `FASTERSEG_AUTO=off` takes the first one unmeasured.

    Args:
        question: what there is to choose from.
        on_note: gets lines for people.

    Raises:
        DeviceLostError: the GPU was lost while one was tried.
        EngineError: none of the variants can be run.
    """
    named = {variant.name: variant for variant in question.variants}
    first = question.variants[0]
    if len(named) == 1 or os.environ.get(VARIABLE, "").lower() == "off":
        return first
    path = _path(question)
    known = remembered(path)
    if known is None or known.engine not in named:
        on_note(
            f"torch: measuring {len(named)} ways to run {question.title} once for this GPU "
            f"({VARIABLE}=off measures nothing)"
        )
        known = measure(question)
        remember(path, known, on_note, "torch")
    on_note(f"torch: {known.engine} ({known.why})")
    return named[known.engine]


def measure(question: Question) -> Choice:
    """Run all variants, compare their labels with the first one's, time them in turn.

    Raises:
        DeviceLostError: the GPU was lost while one was tried.
        EngineError: none of the variants can be run.
    """
    frames = [
        np.repeat(image[None], question.batch, axis=0)
        for image, _ in images(0, FRAMES, question.size)
    ]
    found = _Found({}, {}, {})
    with ExitStack() as stack:
        for variant in question.variants:
            _try(question, variant, frames, found, stack)
        times = _time(found)
    if not times:
        raise EngineError(
            f"torch cannot run {question.title} in {question.precision} here: "
            + "; ".join(f"{name}: {reason}" for name, reason in found.left_out.items())
        )
    return Choice(
        engine=fastest(times, next(iter(times)), WORTH),
        milliseconds=dict(sorted(times.items(), key=lambda one: one[1])),
        agreement=found.agreement,
        left_out=found.left_out,
        measured_on=datetime.now(UTC).date().isoformat(),
    )


@dataclass(slots=True)
class _Found:
    """What trials gave.

    Attributes:
        passed: name -> variant that is open and right.
        agreement: name -> share of labels equal to the first one's.
        left_out: name -> why it cannot be chosen.
        labels: of the first one that ran, a map of each of the frames.
    """

    passed: dict[str, Trial]
    agreement: dict[str, float]
    left_out: dict[str, str]
    labels: list[NDArray[np.uint8]] | None = None


def _try(
    question: Question,
    variant: Variant,
    frames: Sequence[NDArray[np.uint8]],
    found: _Found,
    stack: ExitStack,
) -> None:
    """Open a variant and compare it; one that stays open is closed by the stack."""
    with ExitStack() as own:
        try:
            trial = question.open_one(variant)
            own.callback(trial.close)
            labels = [trial.run(batch).copy() for batch in frames]
        except DeviceLostError:
            raise
        except (EngineError, UsageError, RuntimeError) as error:
            # Torch's own errors too: a compiler that is not there must not cost the others.
            found.left_out[variant.name] = _reason(error)
            return
        if found.labels is None:
            found.labels = labels
        same = float(np.mean([np.mean(a == b) for a, b in zip(labels, found.labels, strict=True)]))
        found.agreement[variant.name] = same
        if same < PIXEL_AGREEMENT[question.precision]:
            found.left_out[variant.name] = f"only {same:.4%} of its labels are the first one's"
            return
        found.passed[variant.name] = trial
        stack.push(own.pop_all())


def _time(found: _Found) -> dict[str, float]:
    """Median milliseconds of a run; in turn, so that the GPU's clocks are the same for all."""
    taken: dict[str, list[float]] = {name: [] for name in found.passed}
    for turn in range(WARM_UPS + ROUNDS):
        for name, trial in list(found.passed.items()):
            try:
                times = trial.time_on_device(RUNS)
            except DeviceLostError:
                raise
            except (EngineError, RuntimeError) as error:
                # With all of them open, memory may run out only here.
                found.left_out[name] = _reason(error)
                del found.passed[name]
                continue
            if turn >= WARM_UPS:
                taken[name] += times
    return {name: round(statistics.median(taken[name]), 4) for name in found.passed}


def _reason(error: Exception) -> str:
    """The first line of what an error says, for torch's can be pages."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def _path(question: Question) -> Path:
    """Where the answer is kept: by all that it depends on."""
    dependencies = {
        **question.facts,
        "precision": question.precision,
        "size": str(question.size),
        "batch": question.batch,
        "variants": [variant.name for variant in question.variants],
    }
    key = hashlib.sha256(json.dumps(dependencies, sort_keys=True).encode()).hexdigest()[:16]
    name = f"{question.title}_{question.size}_{question.precision}"
    return entry_path("torch", name, key, ".json")
