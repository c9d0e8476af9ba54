"""Steps of `gpu.py` that time the network: `compile` and `bench`, a case each."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import Any, Final

import numpy as np
from gpu_contenders import COMPILED, EAGER, RELEASED, Contender, Paddock, opened
from gpu_device import Device
from gpu_job import Case, Frames, Job
from gpu_layers import case_floors
from gpu_parity import cpu_engine
from gpu_run import Keeper, State, say

from fasterseg.bench.cells import Scope
from fasterseg.bench.interleave import Turns, interleave, ratio
from fasterseg.bench.scopes import cell_of, percentiles
from fasterseg.bench.timing import Lane, Samples
from fasterseg.runtime.base import PIXEL_AGREEMENT
from fasterseg.types import LatencyStats

_MOST_WEIGHT: Final = 64
_OPENING_SHARE: Final = 0.5


def compile_ahead(job: Job, case: Case, keeper: Keeper, state: State) -> None:
    """Let torch compile what it compiles of a case, so that `bench` finds it in torch's cache."""
    device = Device.of(job.device)
    paddock = Paddock(job, case, device, job.frames(case))
    ready: dict[str, float] = {}
    failed: dict[str, str] = {}
    for name, make in paddock.compiled_makers():
        begin = time.perf_counter()
        for title, made in opened(iter([(name, make)]), device, say, lambda: True):
            if isinstance(made, str):
                failed[title] = made
                continue
            ready[title] = time.perf_counter() - begin
            made.close()
        keeper.keep(ready=ready, failed=failed)


def bench(job: Job, case: Case, keeper: Keeper, state: State) -> None:
    """All contenders in turn on frames that change with every run."""
    end = time.monotonic() + job.seconds
    device, frames = Device.of(job.device), job.frames(case)
    paddock = Paddock(job, case, device, frames)
    keeper.keep(size=case.size, batch=case.batch, frames=len(frames), model=job.model)
    keeper.keep(floors_us=case_floors(job, case, state))
    compiled = state.result(f"compile-{case.name}") or {}
    makers = [*paddock.makers()]
    makers[3:3] = [one for one in paddock.compiled_makers() if one[0] in compiled.get("ready", {})]
    until = time.monotonic() + _OPENING_SHARE * job.seconds
    contenders: list[Contender] = []
    absent: dict[str, str] = {}
    for name, made in opened(iter(makers), device, say, lambda: time.monotonic() < until):
        if isinstance(made, str):
            absent[name] = made
        else:
            contenders.append(made)
    if COMPILED not in dict(makers):
        absent[COMPILED] = "not compiled; run the step compile"
    keeper.keep(absent=absent)
    agreement = agreements(job, case, device, contenders, frames)
    rows = measured(job, contenders, frames, end - time.monotonic() - 10, keeper)
    for contender, row in zip(contenders, rows, strict=True):
        row["agreement"] = agreement.get(contender.name)
    keeper.keep(rows=with_ratios(rows), cells=cells(contenders, rows, agreement, frames, job))
    for contender in contenders:
        contender.close()


def agreements(
    job: Job, case: Case, device: Device, contenders: Sequence[Contender], frames: Sequence[Frames]
) -> dict[str, float]:
    """Share of labels on one batch that are the CPU reference's, of contenders of the job's model."""
    with closing(cpu_engine(job.network, job.plan(case.size))) as engine:
        expected = np.concatenate([engine.run(frames[0][k : k + 1]) for k in range(case.batch)])
    found = {}
    for contender in contenders:
        with device.on_stream():
            contender.place(0)
            contender.launch()
        device.synchronize()
        if contender.name != RELEASED:
            found[contender.name] = float(np.mean(contender.labels() == expected))
    return found


class Weighted:
    """A lane that does more runs in its turn than others that take longer: turns as long as theirs."""

    def __init__(self, lane: Lane, longest_ms: float) -> None:
        self._lane = lane
        own_ms = statistics.median(lane.take(3).wall_ms)
        self.weight = max(1, min(_MOST_WEIGHT, round(longest_ms / own_ms)))

    def take(self, runs: int) -> Samples:
        """Run it so many times its weight; once for the run that does not count."""
        return self._lane.take(runs if runs == 1 else runs * self.weight)


def measured(
    job: Job, contenders: Sequence[Contender], frames: Sequence[Frames], left_s: float,
    keeper: Keeper,
) -> list[dict[str, Any]]:  # fmt: skip
    """Time everything in turn."""
    lanes: list[tuple[int, str, Lane]] = []
    for index, contender in enumerate(contenders):
        lanes.append((index, "device", contender.device_lane))
        host = contender.host_lane(frames)
        if host is not None:
            lanes.append((index, "host_to_labels", host))
    protocol = job.protocol_within(left_s, len(lanes))
    keeper.keep(protocol=protocol.to_json())
    say(f"{len(lanes)} lanes in turn, protocol {protocol.name}")
    longest_ms = max(statistics.median(lane.take(3).wall_ms) for _, _, lane in lanes)
    weighted = [Weighted(lane, longest_ms) for _, _, lane in lanes]
    turns = interleave(weighted, protocol)
    rows: list[dict[str, Any]] = [row_of(contender) for contender in contenders]
    for (index, scope, _), turn in zip(lanes, turns, strict=True):
        rows[index] |= {scope: of_turns(turn), f"_{scope}": turn}
    return rows


def row_of(contender: Contender) -> dict[str, Any]:
    """What there is to say of a contender before it is timed."""
    return {
        "name": contender.name,
        "precision": contender.precision,
        "facts": contender.facts,
    }


def of_turns(turns: Turns) -> dict[str, Any]:
    """Times as JSON values; percentiles of all runs, medians of the turns."""
    times = turns.samples.wall_ms
    return {
        **LatencyStats.of(times).to_json(),
        "percentiles_ms": percentiles(times),
        "rounds_ms": turns.rounds_ms,
    }


def with_ratios(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows with how many times as long the eager and the compiled network take, round by round."""
    bases = {row["name"]: row["_device"].rounds_ms for row in rows}
    found = []
    for row in rows:
        own = row["_device"].rounds_ms
        ratios = {
            base: dataclasses.asdict(ratio(bases[base], own))
            for base in (EAGER, COMPILED)
            if base in bases
        }
        found.append({key: row[key] for key in row if not key.startswith("_")} | {"faster": ratios})
    return found


def cells(
    contenders: Sequence[Contender], rows: Sequence[Mapping[str, Any]],
    agreement: Mapping[str, float], frames: Sequence[Frames], job: Job,
) -> list[dict[str, Any]]:  # fmt: skip
    """Our engines as cells of a benchmark record."""
    found = []
    for contender, row in zip(contenders, rows, strict=True):
        if contender.engine is None or contender.name == RELEASED:
            continue
        times: dict[Scope, Turns] = {
            "model": row["_device"],
            "host_to_labels": row["_host_to_labels"],
        }
        cell = cell_of(contender.engine, frames[0], times)
        facts = contender.facts
        share = agreement[contender.name]
        right = share >= PIXEL_AGREEMENT[contender.precision]
        cell = dataclasses.replace(
            cell,
            model_clock="host" if job.trial else "device",
            build_s=round(facts["open_s"], 3),
            label_agreement=share,
            verdict="ok" if right else "wrong",
        )
        found.append(cell.to_json())
    return found
