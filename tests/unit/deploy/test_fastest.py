"""`--engine auto`: the fastest engine whose labels are right, measured once and remembered."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fasterseg.cache import entries
from fasterseg.deploy import fastest
from fasterseg.errors import EngineError
from fasterseg.graph.emit import EmitOptions
from fasterseg.runtime import auto, choice, select
from fasterseg.runtime.base import EngineSpec
from fasterseg.runtime.choice import Choice, Question, choose
from fasterseg.runtime.model import resolve_model
from fasterseg.runtime.select import EngineRequest, open_engine
from fasterseg.runtime.store import describe
from fasterseg.types import Size
from tests.parity import street_like

pytestmark = pytest.mark.onnx

SIZE = Size(64, 96)


@pytest.fixture(autouse=True)
def measuring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTERSEG_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("FASTERSEG_AUTO", raising=False)


class Clock:
    """Seconds that only runs let pass."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Fake:
    """An engine that takes so many seconds and gives so many wrong labels."""

    backend, device, tail = "fake", "cpu", "graph"

    def __init__(self, clock: Clock, seconds: float, wrong: float = 0.0) -> None:
        self.spec: EngineSpec = describe(resolve_model("fasterseg-camvid"), SIZE, EmitOptions())
        self._clock, self._seconds, self._wrong = clock, seconds, wrong
        self.closed = False

    def run(self, frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
        self._clock.now += self._seconds
        labels = (frames[..., 0] // 24).astype(np.uint8)
        count = round(self._wrong * labels[0].size)
        labels.reshape(len(labels), -1)[:, :count] = (labels.reshape(len(labels), -1) + 1)[
            :, :count
        ] % 11
        return labels

    def close(self) -> None:
        self.closed = True


class OneClass(Fake):
    """Sees the same everywhere."""

    def run(self, frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return np.zeros_like(super().run(frames))


def question(clock: Clock, **engines: Fake | Exception) -> Question:
    def open_one(name: str) -> Any:
        found = engines[name]
        if isinstance(found, Exception):
            raise found
        return found

    facts = {"model": "x", "size": str(SIZE), "device": "cpu"}
    return Question(list(engines), open_one, lambda: Fake(clock, 1.0), facts, trained=True)


def measured(asked: Question, clock: Clock) -> Choice:
    return fastest.measure(asked, lambda _: None, clock)


def test_the_fastest_is_taken_and_all_are_closed() -> None:
    clock = Clock()
    slow, fast = Fake(clock, 0.030), Fake(clock, 0.010)
    found = measured(question(clock, onnxruntime=slow, openvino=fast), clock)
    assert found.engine == "openvino"
    assert dict(found.milliseconds) == pytest.approx({"openvino": 10.0, "onnxruntime": 30.0})
    assert found.agreement == {"onnxruntime": 1.0, "openvino": 1.0}
    assert slow.closed
    assert fast.closed


def test_a_fast_engine_with_wrong_labels_is_left_out_with_the_reason() -> None:
    clock = Clock()
    engines: dict[str, Fake | Exception] = {
        "onnxruntime": Fake(clock, 0.030),
        "openvino": Fake(clock, 0.010, wrong=0.01),
    }
    found = measured(question(clock, **engines), clock)
    assert found.engine == "onnxruntime"
    assert "labels are right" in found.left_out["openvino"]
    assert "not openvino" in found.why


@pytest.mark.parametrize(("wrong", "chosen"), [(0.024, "openvino"), (0.03, "onnxruntime")])
def test_int8_may_be_as_far_from_fp32_as_the_first_is(wrong: float, chosen: str) -> None:
    clock = Clock()
    first, other = Fake(clock, 0.030, wrong=0.02), Fake(clock, 0.010, wrong=wrong)
    for engine in (first, other):
        engine.spec = dataclasses.replace(engine.spec, precision="int8")
    assert measured(question(clock, onnxruntime=first, openvino=other), clock).engine == chosen


def test_untrained_weights_that_see_few_classes_prove_nothing() -> None:
    clock = Clock()
    asked = question(clock, onnxruntime=Fake(clock, 0.030), openvino=Fake(clock, 0.010))
    few = dataclasses.replace(asked, trained=False, reference=lambda: OneClass(clock, 0.01))
    blind = {name: OneClass(clock, ms) for name, ms in (("onnxruntime", 3.0), ("openvino", 1.0))}
    found = measured(dataclasses.replace(few, open_one=lambda name: blind[name]), clock)
    assert found.engine == "onnxruntime"
    assert "prove nothing" in found.left_out["openvino"]


def test_next_to_nothing_gained_leaves_the_first() -> None:
    clock = Clock()
    engines: dict[str, Fake | Exception] = {
        "onnxruntime": Fake(clock, 0.0100),
        "openvino": Fake(clock, 0.0099),
    }
    assert measured(question(clock, **engines), clock).engine == "onnxruntime"


def test_one_that_cannot_be_opened_is_left_out_and_none_at_all_is_its_error() -> None:
    clock = Clock()
    broken = EngineError("does not start")
    found = measured(question(clock, onnxruntime=Fake(clock, 0.01), openvino=broken), clock)
    assert (found.engine, dict(found.left_out)) == ("onnxruntime", {"openvino": "does not start"})
    with pytest.raises(EngineError, match="does not start"):
        measured(question(clock, onnxruntime=broken, openvino=broken), clock)


def test_engines_that_are_all_wrong_are_an_error() -> None:
    clock = Clock()
    engines: dict[str, Fake | Exception] = {
        name: Fake(clock, 0.01, wrong=0.5) for name in ("onnxruntime", "openvino")
    }
    with pytest.raises(EngineError, match="fasterseg verify"):
        measured(question(clock, **engines), clock)


@pytest.fixture
def measurer(monkeypatch: pytest.MonkeyPatch) -> list[Question]:
    """Answers "openvino", and keeps what it was asked."""
    asked: list[Question] = []

    def measure(one: Question, on_note: Callable[[str], None]) -> Choice:
        asked.append(one)
        return Choice("openvino", {"openvino": 1.0, "onnxruntime": 2.0}, measured_on="2026-01-01")

    monkeypatch.setattr(choice, "resolve", lambda *_: measure)
    return asked


def test_it_is_measured_once_and_the_reason_told_every_time(measurer: list[Question]) -> None:
    clock = Clock()
    asked = question(clock, onnxruntime=Fake(clock, 1), openvino=Fake(clock, 1))
    for _ in range(2):
        notes: list[str] = []
        assert choose(asked, notes.append) == "openvino"
        assert "auto: openvino (measured 2026-01-01: openvino 1.0 ms" in notes[-1]
    assert len(measurer) == 1
    assert [entry.kind for entry in entries()] == ["auto"]


@pytest.mark.parametrize("change", ["device", "version", "size"])
def test_another_device_version_or_size_is_measured_again(
    measurer: list[Question], monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    clock = Clock()
    asked = question(clock, onnxruntime=Fake(clock, 1), openvino=Fake(clock, 1))
    choose(asked, print)
    if change == "device":
        monkeypatch.setattr(choice, "cpu_name", lambda: "another")
    elif change == "version":
        monkeypatch.setattr(choice, "_version", lambda _: "99")
    else:
        asked = dataclasses.replace(asked, facts={**asked.facts, "size": "1x1"})
    choose(asked, print)
    assert len(measurer) == 2


def test_a_damaged_answer_is_measured_again(measurer: list[Question]) -> None:
    clock = Clock()
    asked = question(clock, onnxruntime=Fake(clock, 1), openvino=Fake(clock, 1))
    choose(asked, print)
    [entry] = entries()
    for text in ("{", json.dumps({"engine": 3}), json.dumps({"engine": "no", "milliseconds": {}})):
        entry.path.write_text(text)
        assert choose(asked, print) == "openvino"
    assert len(measurer) == 4


def test_a_single_one_or_the_switch_measures_nothing(
    measurer: list[Question], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    assert choose(question(clock, onnxruntime=Fake(clock, 1)), print) == "onnxruntime"
    monkeypatch.setenv("FASTERSEG_AUTO", "off")
    both = question(clock, onnxruntime=Fake(clock, 1), openvino=Fake(clock, 1))
    assert choose(both, print) == "onnxruntime"
    assert not measurer


@pytest.mark.openvino
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_real_engines_are_compared_and_one_of_them_opens(precision: str) -> None:
    notes: list[str] = []
    # Large enough that not every pixel lies beside a border between classes.
    size = Size(256, 384)
    request = EngineRequest(device="cpu", size=size, threads=1, precision=precision)
    engine = open_engine(request, size, notes.append)
    assert engine.backend in ("onnxruntime", "openvino")
    told = " ".join(notes)
    assert "auto: measuring onnxruntime, openvino once" in told
    assert f"auto: {engine.backend} (measured" in told
    assert "not openvino" not in told
    again: list[str] = []
    assert open_engine(request, size, again.append).backend == engine.backend
    assert "once" not in " ".join(again)
    assert engine.run(street_like(size)).shape == (1, *size)


def test_what_the_question_holds_follows_from_the_request(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[Question] = []

    def taking(asked: Question, _: object) -> str:
        seen.append(asked)
        return asked.names[0]

    monkeypatch.setattr(auto, "choose", taking)
    monkeypatch.setattr(
        auto, "installed", lambda device: ["onnxruntime", "openvino"] if device == "cpu" else []
    )
    for fields in ({}, {"precision": "int8"}, {"precision": "bf16", "engine": "auto"}):
        request = EngineRequest(device="cpu", size=SIZE, threads=1, **fields)  # type: ignore[arg-type]
        monkeypatch.setattr(select, "_open_named", lambda *_, **__: Fake(Clock(), 1))
        open_engine(request, SIZE, print)
    assert [list(asked.names) for asked in seen] == [
        ["onnxruntime", "openvino"],
        ["onnxruntime", "openvino"],
        ["openvino"],
    ]
    assert [asked.facts["precision"] for asked in seen] == ["fp32", "int8", "bf16"]
    assert seen[1].facts["ranges"]
