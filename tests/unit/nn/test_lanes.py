"""Streams and events of a schedule, on stand-ins that know what each stream is behind of."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from fasterseg.arch.plan import plan
from fasterseg.nn.schedule import Schedule, schedule
from fasterseg.types import Size
from tests.parity import random_genotype
from tests.shared import zoo_genotype

torch = pytest.importorskip("torch", reason="torch not installed")

from fasterseg.nn.lanes import Lanes  # noqa: E402 - needs torch

pytestmark = pytest.mark.torch

Made = tuple[int, int]
"""Number of the pass and launch."""


@dataclass
class Stream:
    """Knows the work that is surely done when its next work begins, and its free memory."""

    behind: set[Made] = field(default_factory=set)
    free: list[set[Made]] = field(default_factory=list)

    def wait_event(self, event: Event) -> None:
        assert event.behind is not None, "waited for before it was recorded in this pass"
        self.behind |= event.behind


class Event:
    """What the stream was behind of when it was recorded."""

    def __init__(self) -> None:
        self.behind: set[Made] | None = None

    def record(self, stream: Stream) -> None:
        self.behind = set(stream.behind)


@dataclass
class Device:
    """Stands for `torch.cuda`."""

    current: Stream = field(default_factory=Stream)
    streams: list[Stream] = field(default_factory=list)

    def make(self, device: Any) -> Stream:
        self.streams.append(Stream())
        return self.streams[-1]

    @contextlib.contextmanager
    def use(self, stream: Stream) -> Iterator[None]:
        before, self.current = self.current, stream
        yield
        self.current = before


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Device:
    device = Device()
    monkeypatch.setattr(torch.cuda, "Stream", device.make)
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "stream", device.use)
    return device


def run(order: Schedule, lanes: Lanes, device: Device, number: int) -> None:
    """A pass: every launch behind what it reads, and its memory behind the last use of it."""
    main: Any = device.current
    memory: dict[int, tuple[Stream, set[Made]]] = {}
    for launch in order.launches:
        with lanes.around(launch, main):
            stream = device.current
            for source in launch.inputs:
                assert (number, source) in stream.behind, f"{launch.name} reads too early"
                memory[source][1].add((number, launch.id))
            # Any block that its stream has free may be taken: whoever used one must be done.
            for users in stream.free:
                assert users <= stream.behind, f"{launch.name} overwrites what is still read"
            if stream.free:
                stream.free.pop()
            stream.behind.add((number, launch.id))
            memory[launch.id] = (stream, {(number, launch.id)})
        for value in order.freed[launch.id]:
            taken, users = memory.pop(value)
            taken.free.append(users)
    for taken, users in memory.values():
        taken.free.append(users)


def orders() -> list[Schedule]:
    genotypes = [zoo_genotype("fasterseg-student"), zoo_genotype("fasterseg-teacher")]
    genotypes += [random_genotype(seed) for seed in range(12)]
    return [
        schedule(plan(genotype, Size(64, 128)), zoomed=zoomed, lanes=lanes)
        for genotype in genotypes
        for lanes in (1, 2, 3)
        for zoomed in (False, True)
    ]


def test_no_launch_reads_too_early_or_overwrites_what_is_read(cuda: Device) -> None:
    for order in orders():
        lanes = Lanes(order, torch.device("cuda"))
        for number in range(3):
            run(order, lanes, cuda, number)


def test_every_lane_ends_in_the_first_one(cuda: Device) -> None:
    for order in orders():
        cuda.current = Stream()
        run(order, Lanes(order, torch.device("cuda")), cuda, 0)
        assert cuda.current.behind == {(0, launch.id) for launch in order.launches}


def test_there_is_a_stream_for_each_lane_but_the_callers(cuda: Device) -> None:
    for lanes in (1, 2):
        cuda.streams.clear()
        of = plan(zoo_genotype("fasterseg-student"), Size(64, 128))
        Lanes(schedule(of, lanes=lanes), torch.device("cuda"))
        assert len(cuda.streams) == lanes - 1


def test_a_value_freed_too_early_would_be_noticed(cuda: Device) -> None:
    of = plan(zoo_genotype("fasterseg-student"), Size(64, 128))
    order = schedule(of, lanes=2)
    # As if crossings were freed like all others.
    early: list[list[int]] = [[] for _ in order.launches]
    for value, last in enumerate(order.last_use):
        early[last].append(value)
    order.__dict__["freed"] = tuple(tuple(values) for values in early)
    with pytest.raises(AssertionError, match="overwrites"):
        run(order, Lanes(order, torch.device("cuda")), cuda, 0)
