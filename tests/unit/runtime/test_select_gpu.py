"""What is chosen on a machine with a GPU, over stand-ins for it."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from fasterseg import registry
from fasterseg.errors import DeviceUnavailableError, UsageError
from fasterseg.runtime import auto, choice, select
from fasterseg.runtime.auto import candidates
from fasterseg.runtime.base import EngineSpec
from fasterseg.runtime.select import EngineRequest, open_engine
from fasterseg.types import Size
from tests.plans import GPU

SIZE = Size(64, 96)


class Opened:
    """An engine that remembers how it was to be built."""

    def __init__(self, spec: EngineSpec, **settings: Any) -> None:
        self.spec, self.settings = spec, settings


class Backend:
    """The torch backend of a machine with or without a GPU."""

    def __init__(self, has_gpu: bool) -> None:
        self.has_gpu = has_gpu

    def resolve_device(self, device: str) -> str:
        if device == "cuda" and not self.has_gpu:
            raise DeviceUnavailableError("torch sees no CUDA device")
        return "cuda" if self.has_gpu and device != "cpu" else "cpu"

    def build(
        self, plan: Any, weights: Any, spec: EngineSpec, device: str, threads: Any, **settings: Any
    ) -> Opened:
        return Opened(spec, device=device, **settings)


@pytest.fixture(params=[True])
def machine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Backend:
    """Torch beside an ONNX Runtime that has no CUDA provider, as in a plain PyTorch image."""
    backend = Backend(request.param)
    whole = registry.resolve

    def resolve(table: Any, kind: str, name: str) -> Any:
        return backend if name == "torch" else whole(table, kind, name)

    for module in (select, auto):
        monkeypatch.setattr(module, "resolve", resolve)
    monkeypatch.setattr(select, "find_gpu", lambda: GPU if backend.has_gpu else None)
    monkeypatch.setitem(choice.CANDIDATES, "cuda", ("onnxruntime", "torch"))
    return backend


def asked(**changes: Any) -> EngineRequest:
    return dataclasses.replace(EngineRequest(engine="torch", size=SIZE), **changes)


def opened(request: EngineRequest) -> Any:
    return open_engine(request, SIZE, lambda line: None)


@pytest.mark.parametrize("precision", ["bf16", "fp16", "fp32"])
def test_torch_is_built_in_the_precision_asked_for(machine: Backend, precision: str) -> None:
    engine = opened(asked(precision=precision))
    assert (engine.spec.precision, engine.settings["device"]) == (precision, "cuda")


def test_without_plugins_torch_is_told_so(machine: Backend) -> None:
    assert opened(asked()).settings["plugins"] == "auto"
    assert opened(asked(plugins="off")).settings["plugins"] == "off"


@pytest.mark.parametrize("machine", [False], indirect=True)
def test_bf16_is_refused_where_torch_ends_up_on_the_cpu(machine: Backend) -> None:
    with pytest.raises(UsageError, match=r"does not compute in bf16 on cpu.*--device cuda"):
        opened(asked(precision="bf16"))


@pytest.mark.onnx
def test_auto_takes_the_gpu_where_one_installed_backend_runs_on_it(machine: Backend) -> None:
    engine = opened(asked(engine="auto"))
    assert (engine.settings["device"], engine.spec.precision) == ("cuda", "fp16")


@pytest.mark.onnx
@pytest.mark.parametrize("machine", [False], indirect=True)
def test_auto_takes_the_cpu_where_there_is_no_gpu(machine: Backend) -> None:
    engine = opened(asked(engine="auto"))
    assert (engine.backend, engine.device) == ("onnxruntime", "cpu")
    engine.close()


@pytest.mark.onnx
@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({}, ["torch"]),
        ({"precision": "bf16"}, ["torch"]),
        ({"precision": "int8"}, []),
        ({"tail": "native"}, []),
        ({"tail": "graph"}, []),
    ],
)
def test_auto_considers_what_can_do_as_asked(
    machine: Backend, changes: dict[str, Any], names: list[str]
) -> None:
    assert candidates(asked(device="cuda", **changes)) == names


@pytest.mark.onnx
def test_what_no_backend_does_on_the_gpu_stays_on_the_cpu(machine: Backend) -> None:
    engine = opened(asked(engine="auto", tail="graph"))
    assert (engine.backend, engine.device) == ("onnxruntime", "cpu")
    engine.close()
