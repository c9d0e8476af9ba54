"""NVIDIA's own parser and builder on our nodes with our plugins: TensorRT-RTX, which runs on a CPU.

Not TensorRT, and nothing is executed: what is proven is that nodes find their plugins, that shapes,
types and formats are accepted, and that an engine with them is built.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx", reason="onnx not installed")

import onnx
from onnx import TensorProto, helper, numpy_helper

from fasterseg.arch.plan import plan
from fasterseg.graph.emit import EmitOptions, emit
from fasterseg.graph.functions import (
    opset_imports,
    upsample_argmax,
    zoomed_conv,
    zoomed_name,
)
from fasterseg.graph.weights import seeded_weights
from fasterseg.types import Size
from tests.shared import zoo_genotype
from tests.unit.cpp.plugin_builds import PluginBuild

pytestmark = [pytest.mark.tensorrt, pytest.mark.onnx]

LINK = "libtensorrt_rtx.so"
FUNCTIONS = {
    "UpsampleArgmax": upsample_argmax(8),
    **{zoomed_name(c, s): zoomed_conv(c, s) for c in (1, 2) for s in (1, 2)},
}


@dataclass(frozen=True)
class Engine:
    """What RTX made of a model."""

    parsed: bool
    layers: dict[str, int]
    outputs: list[list[Any]]
    bytes: int
    errors: list[str]
    stderr: str
    plan: Path

    @property
    def plugins(self) -> int:
        """How many of its layers are plugins."""
        return self.layers.get("PLUGIN_V3", 0)

    def said(self, text: str) -> bool:
        """Whether RTX's logger or standard error was told so."""
        return any(text in error for error in [*self.errors, self.stderr])


class Rtx:
    """RTX in processes of their own."""

    def __init__(self, folder: Path) -> None:
        spec = importlib.util.find_spec("tensorrt_rtx_libs")
        if spec is None or not spec.submodule_search_locations:
            pytest.skip(
                "no tensorrt_rtx in this environment: plugins were NOT given to its parser; "
                "pip install tensorrt-rtx-cu13==1.7.1.116"
            )
        # The parser opens its library by a name that the wheel lacks, and aborts without it. The
        # link must lead to this environment's copy (two copies in one process do not work), and
        # the loader reads the path when the process starts.
        (folder / LINK).symlink_to(Path(spec.submodule_search_locations[0]) / f"{LINK}.1")
        self.folder = folder

    def build(self, model: onnx.ModelProto, library: Path | None, name: str = "model") -> Engine:
        """Parse and build; without a library the nodes' own bodies are built."""
        source, made = self.folder / f"{name}.onnx", self.folder / f"{name}.plan"
        onnx.save(model, source)
        script = Path(__file__).with_name("rtx_build.py")
        command = [sys.executable, script, source, made, *([library] if library else [])]
        done = subprocess.run(
            [str(part) for part in command], capture_output=True, text=True, check=False,
            env={**os.environ, "LD_LIBRARY_PATH": str(self.folder)}, timeout=300,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return Engine(**json.loads(done.stdout), stderr=done.stderr, plan=made)


@pytest.fixture(scope="module")
def rtx(tmp_path_factory: pytest.TempPathFactory) -> Rtx:
    return Rtx(tmp_path_factory.mktemp("rtx"))


def network(name: str) -> onnx.ModelProto:
    """A real network, fp16 at 1024x2048, random weights."""
    sized = plan(zoo_genotype(name), Size(1024, 2048))
    return emit(sized, seeded_weights(sized), EmitOptions(precision="fp16"))


def model_of(
    op: str,
    inputs: list[tuple[str, int, list[int]]],
    output: tuple[int, int],
    *,
    body: bool = True,
    domain: str = "fasterseg",
    **attributes: Any,
) -> onnx.ModelProto:
    """One node; all inputs but the first are constants. `output` is type and rank."""
    fixed = [
        helper.make_tensor(name, kind, shape, np.zeros(shape).ravel())
        for name, kind, shape in inputs[1:]
    ]
    given = {"plugin_version": "1", "plugin_namespace": "fasterseg", **attributes}
    node = helper.make_node(op, [name for name, _, _ in inputs], ["y"], domain=domain, **given)
    name, kind, shape = inputs[0]
    free = [f"axis{index}" if axis < 0 else axis for index, axis in enumerate(shape)]
    y = helper.make_tensor_value_info("y", output[0], [f"y{axis}" for axis in range(output[1])])
    graph = helper.make_graph(
        [node], "one", [helper.make_tensor_value_info(name, kind, free)], [y], fixed
    )
    opsets = [*opset_imports(local_functions=False), helper.make_opsetid(domain, 1)]
    functions = [FUNCTIONS[op]] if body else []
    return helper.make_model(graph, functions=functions, opset_imports=opsets, ir_version=9)


def tail(
    kind: int = TensorProto.FLOAT16, shape: tuple[int, ...] = (1, 19, 16, 32), **more: Any
) -> Any:
    """UpsampleArgmax alone."""
    options = {"scale": 8, **more}
    return model_of("UpsampleArgmax", [("x", kind, list(shape))], (TensorProto.INT8, 3), **options)


def zoomed(
    convs: int,
    stride: int,
    *,
    kind: int = TensorProto.FLOAT16,
    bias: int | None = None,
    shape: tuple[int, ...] = (1, 16, 32, 48),
    **more: Any,
) -> Any:
    """A zoomed convolution to 24 channels, alone."""
    inputs = [("x", kind, list(shape))]
    for conv in range(1, convs + 1):
        channels = shape[1] if conv == 1 else 24
        inputs.append((f"weight{conv}", kind, [24, channels, 3, 3]))
        inputs.append((f"bias{conv}", kind if bias is None else bias, [24]))
    sizes: dict[str, Any] = {}
    if -1 not in shape:
        sizes["half_sizes"] = [shape[0], shape[1], shape[2] // 2, shape[3] // 2]
        if stride == 1:
            sizes["out_sizes"] = [shape[0], 24, shape[2], shape[3]]
    return model_of(zoomed_name(convs, stride), inputs, (kind, 4), **{**sizes, **more})


@pytest.mark.parametrize("name", ["fasterseg-student", "fasterseg-teacher"])
def test_real_networks_are_built_with_plugins(
    rtx: Rtx, plugins: list[PluginBuild], name: str
) -> None:
    model = network(name)
    ours = [node for node in model.graph.node if node.op_type in FUNCTIONS]
    assert len(ours) > 10
    for build in plugins:
        engine = rtx.build(model, build.library, name)
        assert engine.bytes > 0, engine.errors
        assert engine.plugins == len(ours)
        assert engine.outputs == [["UINT8", [1, 1024, 2048]]]
        assert "RESIZE" not in engine.layers or engine.layers["RESIZE"] == 3  # of the merges


def test_real_network_is_built_without_plugins(rtx: Rtx) -> None:
    engine = rtx.build(network("fasterseg-student"), None)
    assert engine.bytes > 0, engine.errors
    assert engine.plugins == 0
    assert engine.layers["RESIZE"] > 20


def test_weights_are_reordered_for_the_kernels_when_the_engine_is_built(
    rtx: Rtx, plugins: list[PluginBuild]
) -> None:
    model = network("fasterseg-student")
    weights = {one.name: numpy_helper.to_array(one) for one in model.graph.initializer}
    built = rtx.build(model, plugins[0].library).plan.read_bytes()
    cells = [node for node in model.graph.node if node.op_type.startswith("ZoomedConv")]
    for cell in cells:
        weight = weights[cell.input[1]]
        assert np.ascontiguousarray(weight.transpose(0, 2, 3, 1)).tobytes() in built
        assert weight.tobytes() not in built


@pytest.mark.parametrize("kind", [TensorProto.FLOAT, TensorProto.FLOAT16])
def test_logits_of_both_types_are_taken(rtx: Rtx, plugins: list[PluginBuild], kind: int) -> None:
    engine = rtx.build(tail(kind), plugins[0].library)
    assert (engine.plugins, engine.outputs) == (1, [["INT8", [1, 128, 256]]])
    assert engine.bytes > 0, engine.errors


@pytest.mark.parametrize("convs", [1, 2])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("bias", [TensorProto.FLOAT, TensorProto.FLOAT16])
def test_each_zoomed_convolution_is_taken(
    rtx: Rtx, plugins: list[PluginBuild], convs: int, stride: int, bias: int
) -> None:
    engine = rtx.build(zoomed(convs, stride, bias=bias), plugins[0].library)
    size = [32, 48] if stride == 1 else [16, 24]
    assert (engine.plugins, engine.outputs) == (1, [["HALF", [1, 24, *size]]])
    assert engine.bytes > 0, engine.errors


def test_free_axes_are_taken(rtx: Rtx, plugins: list[PluginBuild]) -> None:
    for model in (
        tail(shape=(-1, 19, -1, -1)),
        zoomed(2, 1, shape=(-1, 16, -1, -1), body=False),
        zoomed(1, 2, shape=(-1, 16, -1, -1), body=False),
    ):
        engine = rtx.build(model, plugins[0].library)
        assert engine.plugins == 1
        assert engine.bytes > 0, engine.errors


@pytest.mark.parametrize("name", ["plugin_version", "plugin_namespace"])
def test_node_for_another_plugin_gets_its_body(
    rtx: Rtx, plugins: list[PluginBuild], name: str
) -> None:
    other: dict[str, Any] = {name: "9"}
    engine = rtx.build(tail(**other), plugins[0].library)
    assert engine.plugins == 0
    assert engine.bytes > 0, engine.errors


def test_node_for_another_plugin_without_a_body_is_refused(
    rtx: Rtx, plugins: list[PluginBuild]
) -> None:
    # Without a body the parser also tries the node's domain as the namespace.
    for model in (
        tail(body=False, plugin_version="9"),
        tail(body=False, plugin_namespace="elsewhere", domain="elsewhere"),
    ):
        engine = rtx.build(model, plugins[0].library)
        assert not engine.parsed
        assert engine.said("UpsampleArgmax")


def test_uint8_logits_are_refused(rtx: Rtx, plugins: list[PluginBuild]) -> None:
    for build in plugins:
        engine = rtx.build(tail(TensorProto.UINT8), build.library)
        assert engine.bytes == 0
        assert engine.said("fasterseg::UpsampleArgmax: takes one input, logits in float32 or fp16")


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (tail(scale=4), "attribute scale must be the integer 8"),
        (tail(shape=(1, 128, 4, 4)), "at most 127 classes, not 128"),
        (zoomed(1, 1, kind=TensorProto.FLOAT), "maps and weights must be fp16"),
        (zoomed(1, 1, shape=(1, 12, 8, 8)), "channels must be known and multiples of 8"),
        (zoomed(1, 1, half_sizes=[1, 16]), "attribute half_sizes must be four integers"),
    ],
    ids=["scale", "classes", "float32", "channels", "sizes"],
)
def test_what_the_kernels_cannot_do_is_refused_with_the_reason(
    rtx: Rtx, plugins: list[PluginBuild], model: onnx.ModelProto, reason: str
) -> None:
    engine = rtx.build(model, plugins[0].library)
    assert engine.bytes == 0
    assert engine.said(reason)


def test_reason_reaches_the_logger_of_rtx(rtx: Rtx, plugins: list[PluginBuild]) -> None:
    modern = [build for build in plugins if build.version[0] >= 11]
    if not modern:
        pytest.skip("needs headers of TensorRT 11, whose loggers are laid out as those of RTX")
    engine = rtx.build(tail(TensorProto.UINT8), modern[0].library)
    assert any(error.startswith("fasterseg::UpsampleArgmax") for error in engine.errors)
    assert "fasterseg::" not in engine.stderr
