from __future__ import annotations

from collections.abc import Sequence

import pytest

from fasterseg.bench.timing import (
    FULL,
    PROTOCOLS,
    QUICK,
    ROW,
    TimingProtocol,
    measure,
    measure_device,
)
from fasterseg.errors import EngineError


class FakeClock:
    """Nanoseconds that pass only when `spend` says so."""

    def __init__(self) -> None:
        self.now_ns = 0

    def __call__(self) -> int:
        return self.now_ns

    def spend(self, ms: float) -> None:
        self.now_ns += round(ms * 1e6)


class FakeDevice:
    """Answers the same milliseconds for every run and keeps what it was asked for."""

    def __init__(self, ms: float) -> None:
        self.ms = ms
        self.asked: list[int] = []

    def time_on_device(self, iterations: int) -> Sequence[float]:
        self.asked.append(iterations)
        return [self.ms] * iterations


def run_counts(protocol: TimingProtocol, ms: float) -> tuple[int, int]:
    """(warm-up runs, measured runs) of a call that always takes `ms`."""
    clock = FakeClock()
    seen: list[int] = []

    def run(index: int) -> None:
        seen.append(index)
        clock.spend(ms)

    samples = measure(run, protocol, clock=clock)
    assert seen == list(range(len(seen)))
    assert set(samples.wall_ms) == {ms}
    return len(seen) - len(samples.wall_ms), len(samples.wall_ms)


@pytest.mark.parametrize(
    ("protocol", "ms", "expected"),
    [
        (FULL, 50, (40, 200)),
        (FULL, 1, (2000, 3000)),
        (FULL, 3000, (1, 200)),
        (QUICK, 50, (20, 40)),
        (QUICK, 500, (2, 20)),
        (ROW, 1, (3, 300)),
        (ROW, 50, (3, 20)),
    ],
)
def test_protocol_reaches_every_bound_and_stops_there(
    protocol: TimingProtocol, ms: float, expected: tuple[int, int]
) -> None:
    assert run_counts(protocol, ms) == expected


def test_protocols_are_the_documented_ones() -> None:
    assert {name: protocol.to_json() for name, protocol in PROTOCOLS.items()} == {
        "full": {
            "name": "full",
            "warmup_s": 2.0,
            "warmup_runs": 0,
            "min_runs": 200,
            "min_s": 3.0,
        },
        "quick": {
            "name": "quick",
            "warmup_s": 1.0,
            "warmup_runs": 0,
            "min_runs": 20,
            "min_s": 2.0,
        },
        "row": {"name": "row", "warmup_s": 0.0, "warmup_runs": 3, "min_runs": 20, "min_s": 0.3},
    }


def test_samples_are_per_run_and_leave_warm_up_out() -> None:
    clock = FakeClock()
    durations_ms = [100, 90, 1, 2, 3]
    protocol = TimingProtocol("t", warmup_runs=2, min_runs=3)
    samples = measure(lambda i: clock.spend(durations_ms[i]), protocol, clock=clock)
    assert samples.wall_ms == (1, 2, 3)
    assert samples.cpu_ms == ()


def test_preparation_precedes_each_run_and_is_not_timed() -> None:
    clock = FakeClock()
    calls: list[str] = []

    def prepare(index: int) -> None:
        calls.append(f"prepare {index}")
        clock.spend(70)

    def run(index: int) -> None:
        calls.append(f"run {index}")
        clock.spend(5)

    protocol = TimingProtocol("t", warmup_runs=1, min_runs=2)
    samples = measure(run, protocol, prepare=prepare, clock=clock)
    assert samples.wall_ms == (5, 5)
    assert calls == ["prepare 0", "run 0", "prepare 1", "run 1", "prepare 2", "run 2"]


def test_cpu_time_is_taken_beside_wall_time() -> None:
    wall, cpu = FakeClock(), FakeClock()

    def run(_: int) -> None:
        wall.spend(10)
        cpu.spend(19)

    samples = measure(run, TimingProtocol("t", min_runs=2), clock=wall, cpu_clock=cpu)
    assert samples.wall_ms == (10, 10)
    assert samples.cpu_ms == (19, 19)


def test_device_clock_is_asked_until_every_bound_is_reached() -> None:
    device = FakeDevice(ms=0.25)
    samples = measure_device(device, TimingProtocol("t", warmup_s=0.01, min_runs=20, min_s=0.012))
    # 10 ms of warm-up in tens of 2.5 ms, then 12 ms in portions of min_runs, 5 ms each.
    assert device.asked == [10] * 4 + [20] * 3
    assert samples.wall_ms == (0.25,) * 60


def test_device_clock_keeps_to_the_number_of_warm_up_runs() -> None:
    device = FakeDevice(ms=100)
    assert len(measure_device(device, ROW).wall_ms) == 20
    assert device.asked == [3, 20]


@pytest.mark.parametrize("answer", [[], [1.0], [1.0, 0.0], [1.0, float("nan")], [1.0, 1.0, 1.0]])
def test_device_clock_that_answers_nonsense_is_an_engine_error(answer: list[float]) -> None:
    class Broken:
        def time_on_device(self, iterations: int) -> Sequence[float]:
            return answer

    with pytest.raises(EngineError, match="time_on_device"):
        measure_device(Broken(), TimingProtocol("t", min_runs=2))
