"""The fastest variant whose labels are right, measured once for a GPU and remembered."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from numpy.typing import NDArray

from fasterseg.arch.plan import Plan
from fasterseg.cache import entries
from fasterseg.errors import DeviceLostError, EngineError, UnsupportedError
from fasterseg.runtime.driver import Gpu
from fasterseg.runtime.kernels import KernelLibrary
from fasterseg.types import Precision, Size

torch = pytest.importorskip("torch", reason="torch not installed")

from fasterseg.nn import tuning  # noqa: E402 - needs torch
from fasterseg.nn.fused import Variant  # noqa: E402
from fasterseg.nn.tuning import Question, Trial, candidates, choose, facts  # noqa: E402

pytestmark = pytest.mark.torch

SIZE = Size(64, 96)
TWO, ONE, ZOOMED = Variant(lanes=2), Variant(lanes=1), Variant(lanes=2, zoomed=True)


@pytest.fixture(autouse=True)
def measuring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTERSEG_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("FASTERSEG_AUTO", raising=False)
    monkeypatch.setattr(tuning, "images", pictures)


def pictures(seed: int, count: int, size: Size) -> list[tuple[NDArray[np.uint8], None]]:
    """As rendered streets, without the rendering."""
    return [(np.full((*size, 3), seed + number, np.uint8), None) for number in range(count)]


class Fake:
    """A variant that takes so long, gives so many wrong labels, and may fail."""

    def __init__(
        self, ms: float, wrong: float = 0.0, failing: Exception | None = None, when: str = "run"
    ) -> None:
        self._ms, self._wrong, self._failing, self._when = ms, wrong, failing, when
        self.closed = 0
        self.turns = 0

    def run(self, frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
        self._fail("run")
        labels = np.zeros(frames.shape[:3], np.uint8)
        labels.reshape(-1)[: round(self._wrong * labels.size)] = 1
        return labels

    def time_on_device(self, iterations: int) -> Sequence[float]:
        self._fail("time")
        self.turns += 1
        # The first turn is a warm-up.
        return [self._ms if self.turns > 1 else 99.0] * iterations

    def _fail(self, when: str) -> None:
        if self._failing is not None and when == self._when:
            raise self._failing

    def close(self) -> None:
        self.closed += 1


class Machine:
    """Opens fakes and remembers which."""

    def __init__(self, fakes: Mapping[Variant, Fake | Exception]) -> None:
        self.fakes, self.opened, self.notes = fakes, list[Variant](), list[str]()

    def open(self, variant: Variant) -> Trial:
        self.opened.append(variant)
        fake = self.fakes[variant]
        if isinstance(fake, Exception):
            raise fake
        return fake

    def choose(self, precision: Precision = "fp16", **changes: Any) -> Variant:
        question = Question(
            variants=tuple(self.fakes),
            open_one=self.open,
            precision=precision,
            size=SIZE,
            batch=2,
            facts={"gpu": "NVIDIA H200"},
            title="net",
        )
        return choose(dataclasses.replace(question, **changes), self.notes.append)


def test_the_fastest_is_chosen_and_all_are_closed() -> None:
    fakes = {TWO: Fake(3.0), ONE: Fake(1.0), ZOOMED: Fake(2.0)}
    machine = Machine(fakes)
    assert machine.choose() == ONE
    assert [fake.closed for fake in fakes.values()] == [1, 1, 1]
    assert "lanes1 1.0 ms, lanes2+zoomed 2.0 ms, lanes2 3.0 ms" in machine.notes[-1]


def test_variants_are_timed_in_turn() -> None:
    fakes = {TWO: Fake(3.0), ONE: Fake(1.0)}
    order = []
    for variant, fake in fakes.items():
        timed = fake.time_on_device

        def noted(iterations: int, variant: Variant = variant, timed: Any = timed) -> Any:
            order.append(variant)
            return timed(iterations)

        fake.time_on_device = noted  # type: ignore[method-assign]
    Machine(fakes).choose()
    assert order == [TWO, ONE] * (tuning.WARM_UPS + tuning.ROUNDS)


def test_next_to_no_gain_is_none() -> None:
    assert Machine({TWO: Fake(1.0), ONE: Fake(0.99)}).choose() == TWO
    assert Machine({TWO: Fake(1.0), ZOOMED: Fake(0.9)}).choose() == ZOOMED


@pytest.mark.parametrize(("precision", "wrong"), [("fp16", 0.002), ("bf16", 0.01)])
def test_other_labels_are_not_chosen_however_fast(precision: Precision, wrong: float) -> None:
    fakes = {TWO: Fake(3.0), ONE: Fake(1.0, wrong=wrong), ZOOMED: Fake(2.0, wrong=wrong / 10)}
    machine = Machine(fakes)
    assert machine.choose(precision) == ZOOMED
    assert fakes[ONE].turns == 0
    assert "not lanes1: only 9" in machine.notes[-1]


@pytest.mark.parametrize("when", ["open", "run", "time"])
@pytest.mark.parametrize(
    "error", [UnsupportedError("no compiler\nmore"), RuntimeError("no compiler\nmore")]
)
def test_what_fails_is_left_out_with_its_reason(when: str, error: Exception) -> None:
    failing = error if when == "open" else Fake(1.0, failing=error, when=when)
    machine = Machine({ONE: failing, TWO: Fake(3.0), ZOOMED: Fake(2.0)})
    assert machine.choose() == ZOOMED
    assert "; not lanes1: no compiler" in machine.notes[-1]
    assert "more" not in machine.notes[-1]
    assert all(fake.closed == 1 for fake in machine.fakes.values() if isinstance(fake, Fake))


def test_a_lost_gpu_ends_it() -> None:
    lost = Fake(1.0, failing=DeviceLostError("gone"))
    other = Fake(1.0)
    with pytest.raises(DeviceLostError):
        Machine({TWO: other, ONE: lost}).choose()
    assert (other.closed, lost.closed) == (1, 1)


def test_none_that_runs_is_an_error_with_every_reason() -> None:
    machine = Machine({TWO: EngineError("too big"), ONE: EngineError("too old")})
    with pytest.raises(EngineError, match=r"lanes2: too big; lanes1: too old"):
        machine.choose()
    assert not entries()


def test_a_choice_is_remembered_for_what_it_depends_on() -> None:
    machine = Machine({TWO: Fake(3.0), ONE: Fake(1.0)})
    assert machine.choose() == ONE
    assert machine.choose() == ONE
    assert len(machine.opened) == 2
    assert "measured 2" in machine.notes[-1]
    changes: list[dict[str, Any]] = [
        {"batch": 1}, {"size": Size(64, 64)}, {"facts": {}}, {"precision": "bf16"}
    ]  # fmt: skip
    for change in changes:
        machine.opened.clear()
        assert machine.choose(**change) == ONE
        assert len(machine.opened) == 2, change
    assert {entry.kind for entry in entries()} == {"torch"}


def test_a_choice_that_cannot_be_read_is_made_again() -> None:
    machine = Machine({TWO: Fake(3.0), ONE: Fake(1.0)})
    machine.choose()
    (entry,) = entries()
    entry.path.write_text("{}", encoding="utf-8")
    assert machine.choose() == ONE
    assert len(machine.opened) == 4


def test_a_cache_that_cannot_be_written_costs_only_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("FASTERSEG_CACHE", str(tmp_path / "file"))
    machine = Machine({TWO: Fake(3.0), ONE: Fake(1.0)})
    assert machine.choose() == ONE
    assert any("cannot be kept" in note for note in machine.notes)


def test_off_takes_the_first_one_unmeasured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTERSEG_AUTO", "off")
    machine = Machine({TWO: Fake(3.0), ONE: Fake(1.0)})
    assert machine.choose() == TWO
    assert not machine.opened


def test_a_single_variant_needs_no_measuring() -> None:
    machine = Machine({ONE: Fake(1.0)})
    assert machine.choose() == ONE
    assert not machine.opened


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
@pytest.mark.parametrize("has_kernels", [False, True])
@pytest.mark.parametrize("branches", [1, 2])
def test_candidates_differ_and_fit(precision: Precision, has_kernels: bool, branches: int) -> None:
    found = candidates(precision, has_kernels, branches=branches, compiled=True)
    assert len({one.name for one in found}) == len(found) >= 1
    assert all(one.search for one in found)
    ours = has_kernels and precision == "fp16"
    assert any(one.zoomed for one in found) is ours
    assert any(one.resize == "kernel" for one in found) is ours
    assert any(one.compiled for one in found) is (precision != "fp32")
    assert found[0].lanes == max(one.lanes for one in found) == branches
    assert not any(one.compiled for one in candidates(precision, has_kernels))


def test_facts_name_the_gpu_its_software_and_our_kernels(
    tiny_plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tuning, "find_gpu", lambda: Gpu("NVIDIA H200", (9, 0), "13.0"))
    library = tmp_path / "kernels.so"
    library.write_bytes(b"one")
    kernels = cast("KernelLibrary", type("Kernels", (), {"path": library})())
    first, without = facts(tiny_plan, kernels), facts(tiny_plan, None)
    assert first["gpu"] == {"name": "NVIDIA H200", "capability": (9, 0), "cuda": "13.0"}
    assert first["torch"] == torch.__version__
    assert first["network"] == tiny_plan.genotype.digest()
    library.write_bytes(b"two")
    assert len({one["kernels"] for one in (first, without, facts(tiny_plan, kernels))}) == 3
