"""Steps of `gpu.py`: each launch beside its floor, and several streams through one engine."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from typing import Any, Final

from gpu_contenders import kernels_here
from gpu_device import Device, on_device
from gpu_job import STUDENT, Case, Job
from gpu_parity import ours
from gpu_run import Keeper, State, say

from fasterseg.bench.roofline import MODES, Ceilings, Floor, floors, total_us
from fasterseg.bench.streams import measure_streams
from fasterseg.nn.fused import FusedNetwork, Variant
from fasterseg.nn.schedule import Launch
from fasterseg.nn.tuning import candidates
from fasterseg.runtime.base import Engine
from fasterseg.runtime.select import EngineRequest, open_engine
from fasterseg.stream.batching import SharedEngine
from fasterseg.types import LatencyStats

STREAMS: Final = (1, 4, 16)
LARGEST_BATCH: Final = 8
DELAY_MS: Final = 2.0
"""That a frame may wait for others."""

REPEATS: Final = 20
_RUNS: Final = 30


def case_floors(job: Job, case: Case, state: State) -> dict[str, float]:
    """Microseconds that a GPU needs at least in fp16, by the stated and by its own ceilings."""
    found = {}
    for name, limits in (("stated", Ceilings()), ("measured", own_ceilings(state))):
        for mode in MODES:
            for model in dict.fromkeys((job.model, STUDENT)):
                plan = job.plan(case.size, model)
                layers = floors(plan, mode, batch=case.batch, ceilings=limits)
                found[f"{model} {mode} {name}"] = total_us(layers)
    return found


def own_ceilings(state: State) -> Ceilings:
    """What the step `limits` measured here, else what one H200 was seen to do."""
    measured = (state.result("limits") or {}).get("ceilings")
    if measured is None:
        return Ceilings()
    return Ceilings(measured["product_fp16_tflops"], measured["copy_tb_s"])


def layers(job: Job, keeper: Keeper, state: State) -> None:
    """Every launch of our network alone, as `REPEATS` of it in one graph, beside its floor.

    Its inputs are those of the run before, so they lie in the cache where they fit into it.
    """
    case, device = job.cases[0], Device.of(job.device)
    plan, precision = job.plan(case.size), job.precisions[0]
    kernels = kernels_here(device)
    variant = fastest(candidates(precision, kernels is not None), state, case)
    network = FusedNetwork(
        plan, job.network.load_weights(plan), precision, job.device,
        variant=variant, kernels=kernels,
    )  # fmt: skip
    frames = on_device(job.frames(case)[0], job.device)
    device.synchronize()
    with device.on_stream():
        steps = network.single_steps(frames)
    device.synchronize()
    limits = own_ceilings(state)
    floor_of = Floors(floors(plan, "pass", ceilings=limits), floors(plan, "fold", ceilings=limits))
    rows: list[dict[str, Any]] = []
    keeper.keep(size=case.size, precision=precision, variant=variant.name)
    for launch, call in steps:
        us = alone_us(device, call)
        floor = floor_of(launch)
        rows.append(
            {
                "name": launch.name,
                "kind": launch.kind,
                "lane": launch.lane,
                "channels": [launch.in_channels, launch.out_channels],
                "out_size": str(launch.out_size),
                "us": us,
                "floor_us": None if floor is None else floor.us,
                "bound": None if floor is None else floor.bound,
            }
        )
    keeper.keep(rows=rows, sum_us=sum(row["us"] for row in rows))


def fastest(variants: Sequence[Variant], state: State, case: Case) -> Variant:
    """The variant that `bench` found fastest; the first one where it did not run."""
    rows = (state.result(f"bench-{case.name}") or {}).get("rows", [])
    times = {row["facts"].get("variant"): row["device"]["p50_ms"] for row in rows}
    known = [variant for variant in variants if variant.name in times]
    return min(known, key=lambda variant: float(times[variant.name]), default=variants[0])


def alone_us(device: Device, call: Callable[[], None]) -> float:
    """Median microseconds of a launch among repeats of itself."""

    def repeated() -> None:
        for _ in range(REPEATS):
            call()

    replay = device.captured(repeated)
    return statistics.median(device.times_us(replay, _RUNS)) / REPEATS


class Floors:
    """Which floor is a launch's.

    Args:
        passes: floors with every resize by itself.
        folded: floors without; a zoomed cell that runs as one launch is held to these.
    """

    def __init__(self, passes: Sequence[Floor], folded: Sequence[Floor]) -> None:
        self._passes = {(floor.role, floor.step): floor for floor in passes}
        self._folded = folded

    def __call__(self, launch: Launch) -> Floor | None:
        """Its floor; None for what the floors count as free."""
        if launch.kind == "zoomed":
            return _together([floor for floor in self._folded if floor.role == launch.role])
        step = "resize" if launch.kind == "join" else launch.step
        return self._passes.get((launch.role, step))


def _together(parts: Sequence[Floor]) -> Floor | None:
    """Layers that are one launch, as one layer: what is between them need not be moved."""
    if len(parts) < 2:
        return parts[0] if parts else None
    first, last = parts[0], parts[-1]
    return Floor(
        role=first.role,
        step="zoomed",
        in_channels=first.in_channels,
        out_channels=last.out_channels,
        out_size=last.out_size,
        flop=sum(part.flop for part in parts),
        moved_bytes=sum(part.moved_bytes for part in parts),
        tensor_us=sum(part.tensor_us for part in parts),
        lanes_us=sum(part.lanes_us for part in parts),
        memory_us=sum(part.memory_us for part in parts),
    )


def streams(job: Job, keeper: Keeper, state: State) -> None:
    """Frames a second of 1, 4 and 16 streams: one engine for all of them, and an engine each."""
    case = job.cases[0]
    frames = job.frames(Case(case.size))
    protocol = job.protocol_within(job.seconds / 8, 1)
    rows: list[dict[str, Any]] = []
    keeper.keep(size=case.size, protocol=protocol.to_json(), delay_ms=DELAY_MS)
    for count in STREAMS:
        batch = min(count, LARGEST_BATCH)
        say(f"{count} streams through one engine of batch {batch}")
        with closing(batched(job, case, batch)) as engine, ExitStack() as stack:
            shared = stack.enter_context(SharedEngine(engine, batch, DELAY_MS))
            seats = [stack.enter_context(closing(shared.open())) for _ in range(count)]
            times = measure_streams(seats, frames, protocol)
            sharing = shared.statistics()
        rows.append(row_of(count, "shared", batch, times.calls_per_s, times.samples.wall_ms))
        rows[-1]["sharing"] = repr(sharing)
        keeper.keep(rows=rows)
    own = STREAMS[1]
    say(f"{own} streams, an engine each")
    with ExitStack() as stack:
        size = case.size
        engines = [
            stack.enter_context(closing(ours(job, job.precisions[0], size))) for _ in range(own)
        ]
        times = measure_streams(engines, frames, protocol)
    rows.append(row_of(own, "an engine each", 1, times.calls_per_s, times.samples.wall_ms))
    keeper.keep(rows=rows)


def batched(job: Job, case: Case, batch: int) -> Engine:
    """Our engine for so many frames a call."""
    request = EngineRequest(
        model=job.model,
        engine="torch",
        precision=job.precisions[0],
        device=job.device,
        size=case.size,
        batch=batch,
    )
    return open_engine(request, case.size, say)


def row_of(
    count: int, how: str, batch: int, per_s: float, wall_ms: Sequence[float]
) -> dict[str, Any]:
    """One line of the streams' table."""
    stats: Mapping[str, Any] = LatencyStats.of(wall_ms).to_json()
    return {"streams": count, "how": how, "batch": batch, "frames_per_s": per_s, "latency": stats}
