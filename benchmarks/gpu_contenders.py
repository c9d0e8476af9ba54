"""What is timed against what: the network as PyTorch users run it, and our engine's ways to run it.

All take uint8 frames that lie on the device and leave uint8 labels there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import numpy as np
import torch
from gpu_device import Device, Launch, LaunchLane, on_device
from gpu_job import STUDENT, Case, Frames, Job
from torch import Tensor, nn

from fasterseg.bench.timing import CallLane, Lane, Samples
from fasterseg.errors import EngineError, FastersegError
from fasterseg.nn.fused import FusedNetwork, Variant
from fasterseg.nn.network import Network
from fasterseg.nn.tuning import candidates
from fasterseg.nn.weights import from_arrays
from fasterseg.preprocess import MEAN, STD
from fasterseg.runtime.base import DeviceTimed, Engine
from fasterseg.runtime.kernels import KernelLibrary
from fasterseg.runtime.plugins import open_kernels
from fasterseg.runtime.select import EngineRequest, open_engine
from fasterseg.types import Precision

EAGER: Final = "torch eager, as the original"
CHANNELS_LAST: Final = "torch eager, channels_last"
COMPILED: Final = "torch.compile max-autotune"
ENGINE: Final = "engine"
RELEASED: Final = "released student, 19 classes"

_LEAD: Final = 2


@dataclass
class Contender:
    """One way to run the network, ready to be timed.

    Attributes:
        name: for the table.
        precision: of its arithmetic.
        place: puts the n-th batch where `launch` finds it.
        launch: enqueues one call on the device's stream.
        labels: class maps of the last launch, on the host.
        run: uint8 frames in host memory to uint8 labels there; None where that is not timed.
        device_lane: times calls by the device's clock.
        facts: variant, build time, memory.
        close: gives everything back.
        engine: the engine behind it, None where there is none.
    """

    name: str
    precision: Precision
    place: Callable[[int], None]
    launch: Launch
    labels: Callable[[], Frames]
    run: Callable[[Frames], Frames] | None
    device_lane: Lane
    facts: dict[str, Any] = field(default_factory=dict)
    close: Callable[[], None] = lambda: None
    engine: Engine | None = None

    def host_lane(self, frames: Sequence[Frames]) -> Lane | None:
        """Times calls from host memory to host memory by the host's clock."""
        run = self.run
        return None if run is None else CallLane(lambda i: run(frames[i % len(frames)]))


class AsUsersDo(nn.Module):
    """Frames to labels in plain torch: normalise, the network, full-size logits, argmax.

    Args:
        network: with its weights.
        dtype: of the arithmetic.
        layout: of the maps.
    """

    def __init__(self, network: Network, dtype: torch.dtype, layout: torch.memory_format) -> None:
        super().__init__()
        self.network = network
        self.dtype, self.layout = dtype, layout
        mean, std = (torch.tensor(values).view(1, 3, 1, 1) * 255 for values in (MEAN, STD))
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", mean, persistent=False)
        self.register_buffer("std", std, persistent=False)

    def forward(self, frames: Tensor) -> Tensor:
        """(N, H, W, 3) uint8 BGR to (N, H, W) uint8."""
        rgb = frames.permute(0, 3, 1, 2).flip(1).float()
        x = ((rgb - self.mean) / self.std).to(self.dtype).contiguous(memory_format=self.layout)
        labels: Tensor = self.network(x).argmax(1).to(torch.uint8)
        return labels


class Paddock:
    """Makes contenders for a case.

    Args:
        job: the run.
        case: frames per call and their size.
        device: that runs them.
        frames: the case's batches.
    """

    def __init__(self, job: Job, case: Case, device: Device, frames: Sequence[Frames]) -> None:
        self.job, self.case, self.device, self.frames = job, case, device, list(frames)
        self.plan = job.plan(case.size)
        self.weights = job.network.load_weights(self.plan)
        self.pool = [on_device(batch, device.kind) for batch in self.frames]
        self.kernels = kernels_here(device)
        device.synchronize()

    def makers(self) -> Iterator[tuple[str, Callable[[], Contender]]]:
        """Name and maker of every contender that needs no compiling, what matters most first."""
        fast = self.job.precisions[0]
        yield f"{ENGINE} {fast}", lambda: self.engine(fast)
        yield EAGER, lambda: self.as_users_do(EAGER, "fp32")
        yield CHANNELS_LAST, lambda: self.as_users_do(CHANNELS_LAST, fast)
        yield RELEASED, lambda: self.engine(fast, STUDENT)
        for variant in candidates(fast, self.kernels is not None):
            yield _title(variant), partial(self.variant, variant, fast)
        for precision in self.job.precisions[1:]:
            yield f"{ENGINE} {precision}", partial(self.engine, precision)

    def compiled_makers(self) -> Iterator[tuple[str, Callable[[], Contender]]]:
        """Those that torch compiles first, which takes a minute each unless its cache has them."""
        fast = self.job.precisions[0]
        yield COMPILED, lambda: self.as_users_do(COMPILED, fast)
        for variant in candidates(fast, self.kernels is not None, compiled=True):
            # In a trial there is no compiler that is worth the wait.
            if variant.compiled and not self.job.trial:
                yield _title(variant), partial(self.variant, variant, fast)

    def as_users_do(self, name: str, precision: Precision) -> Contender:
        """The network in plain torch, with or without `torch.compile`."""
        dtype = torch.float32 if precision == "fp32" else torch.float16
        network = Network(self.plan)
        from_arrays(network, self.weights)
        layout = torch.contiguous_format if name == EAGER else torch.channels_last
        placed: Any = network.eval().to(self.device.kind, dtype)
        module: Any = AsUsersDo(placed.to(memory_format=layout), dtype, layout)
        module = module.to(self.device.kind)
        if name == COMPILED:
            # What the plan computes once and keeps is not for the compiler to look into.
            with torch.inference_mode():
                module(self.pool[0])
            module = compiled_as_users_do(module, self.device)
        held: dict[str, Tensor] = {}

        @torch.inference_mode()
        def launch() -> None:
            held["labels"] = module(held["frames"])

        @torch.inference_mode()
        def run(frames: Frames) -> Frames:
            with self.device.on_stream():
                return np.asarray(module(on_device(frames, self.device.kind)).cpu().numpy())

        def place(number: int) -> None:
            held["frames"] = self.pool[number % len(self.pool)]

        return self._ready(
            Contender(
                name,
                precision,
                place,
                launch,
                lambda: np.asarray(held["labels"].cpu().numpy()),
                run,
                LaunchLane(self.device, place, launch),
            )
        )

    def variant(self, variant: Variant, precision: Precision) -> Contender:
        """One way of our engine, captured here so that every replay gets another frame."""
        network = FusedNetwork(
            self.plan, self.weights, precision, self.device.kind,
            variant=variant, kernels=self.kernels,
        )  # fmt: skip
        frames = torch.empty_like(self.pool[0])
        labels = torch.empty(frames.shape[:3], dtype=torch.uint8, device=self.device.kind)
        frames.copy_(self.pool[0])
        replay = self.device.captured(lambda: network.labels(frames, labels))

        def place(number: int) -> None:
            frames.copy_(self.pool[number % len(self.pool)])

        return self._ready(
            Contender(
                _title(variant),
                precision,
                place,
                replay,
                lambda: np.array(labels.cpu().numpy()),
                None,
                LaunchLane(self.device, place, replay),
                {"variant": variant.name, "tail": network.tail},
            )
        )

    def engine(self, precision: Precision, model: str | None = None) -> Contender:
        """Our engine as `--engine torch` opens it."""
        notes: list[str] = []
        request = EngineRequest(
            model=model or self.job.model,
            engine="torch",
            precision=precision,
            device=self.device.kind,
            size=self.case.size,
            batch=self.case.batch,
        )
        begin = time.perf_counter()
        opened = open_engine(request, self.case.size, notes.append)
        held: dict[str, Frames] = {}

        def launch() -> None:
            held["labels"] = opened.run(held["frames"])

        def place(number: int) -> None:
            held["frames"] = self.frames[number % len(self.frames)]

        place(0)
        launch()
        facts = {
            "open_s": time.perf_counter() - begin,
            "tail": opened.tail,
            "captured": getattr(opened, "captured", None),
            "variant": getattr(getattr(opened, "variant", None), "name", None),
            "notes": notes,
        }
        lane: Lane = LaunchLane(self.device, place, launch)
        if isinstance(opened, DeviceTimed):
            lane = EngineLane(opened, self.frames)
        name = RELEASED if model else f"{ENGINE} {precision}"
        return Contender(
            name, precision, place, launch, lambda: held["labels"].copy(),
            None if model else opened.run, lane, facts, opened.close, opened,
        )  # fmt: skip

    def _ready(self, contender: Contender) -> Contender:
        """The contender after its first calls, with the memory that it needs."""
        # Weights and frames may still be on their way on another stream.
        self.device.synchronize()
        begin = time.perf_counter()
        with self.device.on_stream():
            for number in range(3):
                contender.place(number)
                contender.launch()
        self.device.synchronize()
        contender.facts["first_calls_s"] = time.perf_counter() - begin
        return contender


def _title(variant: Variant) -> str:
    return f"variant {variant.name}"


class EngineLane:
    """An engine that times itself, on other frames in every turn."""

    def __init__(self, engine: Any, frames: Sequence[Frames]) -> None:
        self._engine, self._frames, self._turn = engine, frames, 0

    def take(self, runs: int) -> Samples:
        """Run it so many times."""
        for _ in range(2):  # it has two slots of buffers, and times the one or the other
            self._engine.run(self._frames[self._turn % len(self._frames)])
            self._turn += 1
        # The first ones find an idle device, which then waits for the host.
        times = self._engine.time_on_device(runs + _LEAD)[_LEAD:]
        return Samples(tuple(float(ms) for ms in times))


def compiled_as_users_do(module: nn.Module, device: Device) -> Any:
    """`torch.compile` with graphs of its own; in a trial without generated code."""
    # One graph or an error: a network that falls apart would be a weak opponent.
    if device.kind == "cpu":
        return torch.compile(module, backend="eager", dynamic=False, fullgraph=True)
    compiled: Any = torch.compile(module, mode="max-autotune", dynamic=False, fullgraph=True)

    def call(frames: Tensor) -> Tensor:
        # Its graphs hand out their own memory: what the last call gave is over now.
        torch.compiler.cudagraph_mark_step_begin()
        labels: Tensor = compiled(frames)
        return labels

    return call


def kernels_here(device: Device) -> KernelLibrary | None:
    """Our kernels, None where they were not built or there is no GPU."""
    if device.kind == "cpu":
        return None
    try:
        return open_kernels()
    except EngineError:
        return None


def opened(
    makers: Iterator[tuple[str, Callable[[], Contender]]],
    device: Device,
    on_note: Callable[[str], None],
    may_go_on: Callable[[], bool],
) -> Iterator[tuple[str, Contender | str]]:
    """Every contender, or why there is none: one that fails costs none of the others."""
    for name, make in makers:
        if not may_go_on():
            yield name, "left out: no time was left to open it"
            continue
        on_note(f"opening {name}")
        mark = device.memory_mark()
        try:
            contender = make()
        except (FastersegError, RuntimeError) as error:  # torch raises the latter
            yield name, f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"
            continue
        contender.facts |= device.memory_since(mark)
        yield name, contender
