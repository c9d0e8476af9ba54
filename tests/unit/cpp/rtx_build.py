"""Builds an engine with TensorRT-RTX in a process of its own: rtx_build.py MODEL PLAN [LIBRARY].

Prints one JSON object: what the parser and the builder made of the model, and what they said.
Started by `tests/unit/cpp/test_plugins_rtx.py`, which sets the library path.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path

import tensorrt_rtx as trt


class Log(trt.ILogger):  # type: ignore[misc]
    """Keeps what is worse than a warning."""

    def __init__(self) -> None:
        super().__init__()
        self.errors: list[str] = []

    def log(self, severity: trt.ILogger.Severity, text: str) -> None:
        if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
            self.errors.append(text)


def build(builder: trt.Builder, network: trt.INetworkDefinition) -> bytes:
    """The plan, empty where it cannot be built; free axes get sizes from 8 to 64."""
    config = builder.create_builder_config()
    config.num_compute_capabilities = 1
    config.set_compute_capability(trt.ComputeCapability.SM120, 0)
    profile = builder.create_optimization_profile()
    for tensor in (network.get_input(index) for index in range(network.num_inputs)):
        if -1 in tensor.shape:
            sizes = [[s if axis < 0 else axis for axis in tensor.shape] for s in (8, 16, 64)]
            profile.set_shape(tensor.name, *sizes)
    config.add_optimization_profile(profile)
    plan = builder.build_serialized_network(network, config)
    return b"" if plan is None else bytes(plan)


def main(model: str, plan: str, *libraries: str) -> None:
    log = Log()
    builder = trt.Builder(log)
    for library in libraries:
        builder.get_plugin_registry().load_library(library)
    network = builder.create_network(0)
    parsed = trt.OnnxParser(network, log).parse(Path(model).read_bytes())
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    made = build(builder, network) if parsed else b""
    Path(plan).write_bytes(made)
    answer = {
        "parsed": parsed,
        "layers": Counter(layer.type.name for layer in layers),
        "outputs": [
            [network.get_output(i).dtype.name, list(network.get_output(i).shape)]
            for i in range(network.num_outputs)
        ],
        "bytes": len(made),
        "errors": log.errors,
    }
    print(json.dumps(answer))


if __name__ == "__main__":
    main(*sys.argv[1:])
