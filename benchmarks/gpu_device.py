"""A device's own clock through torch: lanes for turns, captured work, ceilings, cost of a launch."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor

from fasterseg.bench.timing import Samples

KERNELS: Final = 46
"""Kernels of the student where every resize is folded into its reader: what a frame launches."""

Launch = Callable[[], None]


@dataclass(frozen=True, slots=True)
class Device:
    """Where work runs, and how it is timed there.

    Attributes:
        kind: "cuda", or "cpu" for trials, where the host's clock is all there is.
        stream: that everything is enqueued on; None on a CPU.
    """

    kind: str
    stream: Any = None

    @classmethod
    def of(cls, kind: str) -> Device:
        """The device with a stream of its own."""
        return cls(kind, torch.cuda.Stream() if kind == "cuda" else None)

    def on_stream(self) -> Any:
        """Makes the stream the current one, inside `with`."""
        return torch.cuda.stream(self.stream)

    def synchronize(self) -> None:
        """Wait until everything enqueued is done."""
        if self.kind == "cuda":
            torch.cuda.synchronize()

    def times_us(self, launch: Launch, runs: int, lead: Launch | None = None) -> list[float]:
        """Microseconds of each of so many launches, one right behind the other.

        Args:
            launch: enqueues the work.
            runs: launches that are timed.
            lead: enqueued in front of each of them, and not timed.
        """
        before = lead or _nothing
        if self.kind == "cpu":
            return [_host_us(launch, before) for _ in range(runs)]
        points = [torch.cuda.Event(enable_timing=True) for _ in range(2 * runs)]
        with self.on_stream():
            # Not timed: with the device still busy, no event has to wait for the host.
            before()
            launch()
            for start, end in zip(points[::2], points[1::2], strict=True):
                before()
                start.record(self.stream)
                launch()
                end.record(self.stream)
        self.stream.synchronize()
        pairs = zip(points[::2], points[1::2], strict=True)
        return [1e3 * start.elapsed_time(end) for start, end in pairs]

    def captured(self, work: Launch) -> Launch:
        """Work as one CUDA graph, after runs that load and choose what it needs; as it is on a CPU."""
        if self.kind == "cpu":
            work()
            return work
        # What it reads may still be on its way on another stream.
        self.synchronize()
        with self.on_stream():
            for _ in range(3):
                work()
        self.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=self.stream):
            work()
        self.synchronize()
        return graph.replay

    def memory_mark(self) -> tuple[int, int]:
        """Bytes taken and bytes held through torch now; the peak begins anew."""
        if self.kind == "cpu":
            return 0, 0
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated(), torch.cuda.memory_reserved()

    def memory_since(self, mark: tuple[int, int]) -> dict[str, float]:
        """What was taken at most since the mark, and what torch holds more than then, in MB."""
        if self.kind == "cpu":
            return {}
        return {
            "peak_mb": (torch.cuda.max_memory_allocated() - mark[0]) / 1e6,
            "held_mb": (torch.cuda.memory_reserved() - mark[1]) / 1e6,
        }


class LaunchLane:
    """Launches timed by the device's clock, each on another frame; a lane for `interleave`.

    Args:
        device: that runs and times them.
        place: puts the n-th frame where the launch finds it; not timed.
        launch: enqueues the work.
    """

    def __init__(self, device: Device, place: Callable[[int], None], launch: Launch) -> None:
        self._device, self._place, self._launch = device, place, launch
        self._placed = 0

    def take(self, runs: int) -> Samples:
        """Run it so many times."""
        times_us = self._device.times_us(self._launch, runs, self._next)
        return Samples(tuple(us / 1e3 for us in times_us))

    def _next(self) -> None:
        self._place(self._placed)
        self._placed += 1


def ceilings(device: Device, tiny: bool) -> dict[str, float]:
    """The rates of a large product and a large copy, on random values: what floors are made of.

    Returns:
        `product_fp16_tflops`, `product_bf16_tflops` (1e12 operations a second), `copy_tb_s` (1e12
        bytes a second, read plus written).
    """
    side, count = (256, 1 << 20) if tiny else (8192, 1 << 31)
    types = {"fp16": torch.float16, "bf16": torch.bfloat16}
    found = {
        f"product_{name}_tflops": _product_tflops(device, side, dtype)
        for name, dtype in types.items()
    }
    source = torch.randint(0, 255, (count,), device=device.kind, dtype=torch.uint8)
    target = torch.empty_like(source)
    us = _median_us(device, lambda: target.copy_(source), runs=20)
    return {**found, "copy_tb_s": 2 * count / us / 1e6}


def _product_tflops(device: Device, side: int, dtype: torch.dtype) -> float:
    first, second = (torch.randn(side, side, device=device.kind, dtype=dtype) for _ in "ab")
    product = torch.empty_like(first)
    us = _median_us(device, lambda: torch.matmul(first, second, out=product), runs=20)
    return 2 * side**3 / us / 1e6


def launch_costs(device: Device) -> dict[str, float]:
    """What `KERNELS` kernels cost that do next to nothing, each waiting for the one before.

    Returns:
        Microseconds for each of them: `eager_us` (launched one by one), `graph_us` (as one graph,
        by the device's clock), and `replay_host_us`, what the host needs to launch the graph.
    """
    value = torch.zeros(1, device=device.kind)

    def work() -> None:
        for _ in range(KERNELS):
            value.add_(1.0)

    eager = _median_us(device, work, runs=50)
    replay = device.captured(work)
    graph = _median_us(device, replay, runs=200)
    return {
        "kernels": KERNELS,
        "eager_us": eager / KERNELS,
        "graph_us": graph / KERNELS,
        "replay_host_us": _host_cost_us(device, replay),
    }


def _host_cost_us(device: Device, replay: Launch) -> float:
    """Time until a launch returns to the host, on an idle device."""
    times = []
    for _ in range(50):
        device.synchronize()
        times.append(_host_us(replay, _nothing))
    return statistics.median(times)


def _median_us(device: Device, launch: Callable[[], object], runs: int) -> float:
    def once() -> None:
        launch()

    device.synchronize()
    device.times_us(once, 3)
    return statistics.median(device.times_us(once, runs))


def _host_us(launch: Launch, before: Launch) -> float:
    before()
    begin = time.perf_counter_ns()
    launch()
    return (time.perf_counter_ns() - begin) / 1e3


def _nothing() -> None:
    pass


def on_device(frames: Any, kind: str) -> Tensor:
    """A batch of frames as a tensor there."""
    return torch.from_numpy(frames).to(kind)
