"""Run in a process of its own by `test_tensorrt_rtx.py`: what the real builder makes of our graphs.

Its parser may end the process; its import loads two hundred megabytes. Prints one JSON object.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import onnx
from onnx import TensorProto, helper

from fasterseg.arch.plan import plan
from fasterseg.deploy.export import Wrapping, export_foreign, read_exported
from fasterseg.errors import FastersegError
from fasterseg.graph.emit import EmitOptions, emit
from fasterseg.graph.foreign import Contract
from fasterseg.graph.precision import quantized_values
from fasterseg.graph.ranges import Ranges
from fasterseg.graph.weights import seeded_weights, weights_sha256
from fasterseg.labels import CITYSCAPES
from fasterseg.runtime.base import METADATA_KEY
from fasterseg.runtime.model import resolve_model
from fasterseg.runtime.plan_files import BuildOptions
from fasterseg.runtime.plan_store import Job, onnx_for, spec_of
from fasterseg.runtime.store import describe
from fasterseg.runtime.trt_build import Order, build
from fasterseg.runtime.trt_target import find_target
from fasterseg.types import Precision, Size
from tests.unit.graph.test_foreign import network, with_argmax

SIZE = Size(1024, 2048)
SMALL = Size(128, 256)


def graph(name: str, precision: Precision, size: Size, **changes: Any) -> bytes:
    """The real graph of a model; int8 with made-up ranges, as only its form counts."""
    model = resolve_model(name)
    network = plan(model.genotype, size)
    weights = seeded_weights(network, 0)
    options = EmitOptions(precision=precision, inline=True, profile="tensorrt")
    options = replace(options, **changes)
    ranges = None
    if precision == "int8":
        floats = emit(network, weights, replace(options, precision="fp32"))
        names = quantized_values(floats.graph)
        ranges = Ranges(
            values={value: (-4.0, 4.0) for value in names},
            weights_sha256=weights_sha256(network, weights),
            method="minmax",
            frames=1,
            frames_sha256="",
            size=str(size),
            source="none",
            fasterseg="",
        )
    model_proto = emit(network, weights, options, {METADATA_KEY: ""}, ranges=ranges)
    data: bytes = model_proto.SerializeToString()
    return data


def order(data: bytes, precision: Precision, size: Size | None, **options: Any) -> Order:
    spec = describe(resolve_model("fasterseg-camvid"), size or SMALL, EmitOptions(precision="fp16"))
    spec = replace(spec, precision=precision, size=size)
    chosen = BuildOptions(plugins="off", **options)
    return Order(data, spec, find_target("tensorrt-rtx", precision, chosen, None, print), chosen)


def facts(made: Order) -> dict[str, Any]:
    """What was built, as JSON values."""
    built = build(made, lambda line: None).facts
    return {
        "layers": built.layers,
        "inputs": built.inputs,
        "outputs": built.outputs,
        "bytes": built.bytes,
        "seconds": built.build_s,
        "targets": built.targets,
        "parity": built.spec.parity,
    }


def networks() -> dict[str, Any]:
    """Student and teacher in every precision at full size; one graph of free sizes."""
    precisions: tuple[Precision, ...] = ("fp32", "fp16", "int8")
    found = {
        f"{name} {precision}": facts(order(graph(name, precision, SIZE), precision, SIZE))
        for name in ("fasterseg-student", "fasterseg-teacher")
        for precision in precisions
    }
    free = graph("fasterseg-student", "fp16", SMALL, dynamic=True)
    sizes = ("64x96", "128x256", "256x512")
    found["free sizes"] = facts(order(free, "fp16", None, dynamic=sizes, max_batch=4))
    functions = graph("fasterseg-student", "fp16", SMALL, inline=False)
    found["functions"] = facts(order(functions, "fp16", SMALL))
    found["logits"] = facts(order(graph("fasterseg-student", "fp16", SMALL, stage="logits8"),
                                  "fp16", SMALL))  # fmt: skip
    return found


def with_nodes(edit: Callable[[onnx.GraphProto], None]) -> bytes:
    model = onnx.load_from_string(graph("fasterseg-student", "fp16", SMALL))
    edit(model.graph)
    data: bytes = model.SerializeToString()
    return data


def unknown_operator(nodes: onnx.GraphProto) -> None:
    for node in nodes.node:
        if node.op_type == "Relu":
            node.op_type = "Rectify"


def uint8_inside(nodes: onnx.GraphProto) -> None:
    """Ids as uint8 between two layers: TensorRT takes uint8 at its ends only."""
    cast = nodes.node[-1]
    assert cast.op_type == "Cast"
    nodes.node.remove(cast)
    picked = next(node for node in nodes.node if node.op_type == "ArgMax")
    name = picked.output[0]
    for node in list(nodes.node):
        if name in node.input:
            nodes.node.remove(node)
    nodes.node.extend(
        [
            helper.make_node("Cast", [name], ["bytes"], to=TensorProto.UINT8),
            helper.make_node("Transpose", ["bytes"], [nodes.output[0].name], perm=[0, 2, 1]),
        ]
    )
    del nodes.output[0].type.tensor_type.shape.dim[:]


def refusals() -> dict[str, list[str]]:
    """Graphs and wishes that must fail, each with our exception and message."""
    fp16 = graph("fasterseg-student", "fp16", SMALL)
    int8 = graph("fasterseg-student", "int8", SMALL)
    tries: dict[str, Callable[[], Order]] = {
        "unknown operator": lambda: order(with_nodes(unknown_operator), "fp16", SMALL),
        "no onnx": lambda: order(b"garbage", "fp16", SMALL),
        "uint8 output": lambda: order(with_nodes(uint8_inside), "fp16", SMALL),
        "fp32 for fp16": lambda: order(graph("fasterseg-student", "fp32", SMALL), "fp16", SMALL),
        "fp16 for fp32": lambda: order(fp16, "fp32", SMALL),
        "fp16 for int8": lambda: order(fp16, "int8", SMALL),
        "int8 for fp16": lambda: order(int8, "fp16", SMALL),
        "cpu profile": lambda: order(
            graph("fasterseg-student", "int8", SMALL, profile="cpu"), "int8", SMALL
        ),
        "no memory": lambda: order(graph("fasterseg-student", "fp16", SIZE), "fp16", SIZE,
                                   workspace_mib=1),
        "unknown gpu": lambda: order(fp16, "fp16", SMALL, targets=("sm_90",)),
    }  # fmt: skip
    found = {}
    for name, make in tries.items():
        try:
            build(make(), lambda line: None)
            found[name] = ["built", ""]
        except FastersegError as error:
            found[name] = [type(error).__name__, str(error)]
    return found


def foreign() -> dict[str, Any]:
    """Wrapped networks: the benchmarks' peers, and one convolution in other forms."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks" / "peers"))
    wishes: dict[str, tuple[onnx.ModelProto, Contract]] = {
        name: (import_module(name).segmenter()[1], Contract()) for name in ("stdc", "ddrnet")
    }
    for scale in (1, 4, 8):
        wishes[f"scale {scale}"] = (network(stride=scale, classes=19), Contract())
    wishes["half"] = (network(kind=TensorProto.FLOAT16, classes=19), Contract())
    wishes["ids"] = (with_argmax(), Contract(scale="labels"))
    wishes["opset 11"] = (network(opset=11, classes=19), Contract())
    found = {}
    with TemporaryDirectory() as folder:
        for name, (model, contract) in wishes.items():
            source, target = Path(folder) / "net.onnx", Path(folder) / "wrapped.onnx"
            onnx.save(model, source)
            wish = Wrapping(source, CITYSCAPES, contract, SMALL)
            export_foreign(wish, target, overwrite=True)
            exported = read_exported(target)
            precision = exported.spec.precision
            options = BuildOptions(plugins="off")
            made = find_target("tensorrt-rtx", precision, options, None, print)
            job = Job(exported, SMALL, EmitOptions(precision=precision), made, options)
            found[name] = facts(Order(onnx_for(job), spec_of(job), made, options))
    return found


if __name__ == "__main__":
    made = {"networks": networks, "refusals": refusals, "foreign": foreign}[sys.argv[1]]()
    print(json.dumps(made))
