"""What several inputs share: on a GPU an engine for a batch of them, on a CPU one for a frame."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from fasterseg.cli import infer_many
from fasterseg.runtime.request import EngineRequest
from fasterseg.types import Size
from tests.unit.stream.conftest import SIZE, StandIn


class OnGpu(StandIn):
    """Says that it runs on a device, with a batch."""

    def __init__(self, device: str, batch: int | None) -> None:
        super().__init__()
        self.device = device
        self.spec = replace(self.spec, batch=batch)


@pytest.mark.parametrize(
    ("device", "streams", "asked", "most"),
    [("cuda", 3, [3], 3), ("cuda", 16, [8], 8), ("cpu", 3, [3, 1], 1)],
)
def test_streams_meet_in_batches_on_a_gpu_alone(
    monkeypatch: pytest.MonkeyPatch, device: str, streams: int, asked: list[int], most: int
) -> None:
    batches: list[int] = []

    def opened(request: EngineRequest, size: Size, tell: Callable[[str], None]) -> StandIn:
        batches.append(request.batch)
        return OnGpu(device, request.batch)

    monkeypatch.setattr(infer_many, "open_engine", opened)
    monkeypatch.setattr(infer_many, "find_gpu", lambda: "a GPU")
    engine = infer_many._open_engine(EngineRequest(), SIZE, streams)
    assert batches == asked
    with infer_many._share(engine, streams) as shared:
        assert shared.max_batch == most


def test_an_engine_file_keeps_the_batch_it_was_made_for(monkeypatch: pytest.MonkeyPatch) -> None:
    batches: list[int] = []

    def opened(request: EngineRequest, size: Size, tell: Callable[[str], None]) -> StandIn:
        batches.append(request.batch)
        return OnGpu("cuda", None)

    monkeypatch.setattr(infer_many, "open_engine", opened)
    monkeypatch.setattr(infer_many, "find_gpu", lambda: "a GPU")
    engine = infer_many._open_engine(EngineRequest(engine="x.onnx"), SIZE, 4)
    assert batches == [1]
    # Its batch is free: all four may meet.
    with infer_many._share(engine, 4) as shared:
        assert shared.max_batch == 4
