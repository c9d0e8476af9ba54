"""ONNX -> a TensorRT network, and the proof that it has the precision that was asked for.

A strongly typed network takes its types from the graph, and no switch can change them; a graph
of another precision than was meant would build and be slow or wrong without a word.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from fasterseg.errors import EngineMismatchError, UnsupportedError
from fasterseg.runtime.trt_log import Messages
from fasterseg.runtime.trt_surface import Api, Builder, Layer, Network, ParserError, Tensor
from fasterseg.types import Precision

_SHOWN: Final = 3
_NARROW: Final = frozenset({"HALF", "BF16", "INT8", "FP8", "INT4", "FP4"})
_FLOATS: Final[Mapping[Precision, str]] = {"fp32": "FLOAT", "fp16": "HALF", "bf16": "BF16"}


@dataclass(frozen=True, slots=True)
class NetworkFacts:
    """What a parsed network is made of.

    Attributes:
        layers: kind of layer ("CONVOLUTION") -> how many.
        inputs: name -> "UINT8 (1, 360, 640, 3)".
        outputs: likewise.
    """

    layers: Mapping[str, int]
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]


def parse(
    api: Api, builder: Builder, logger: Any, messages: Messages, onnx: bytes, title: str
) -> Network:
    """Read an ONNX model into a strongly typed network.

    Raises:
        UnsupportedError: it is no ONNX, or has operators or types that the parser does not take;
            the message lists them.
    """
    # In TensorRT 10 the flag decides; 11 and RTX have no other kind and accept it.
    flags = 1 << int(api.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    network = builder.create_network(flags)
    parser = api.OnnxParser(network, logger)
    messages.clear()
    if not parser.parse(onnx):
        errors = [parser.get_error(index) for index in range(parser.num_errors)]
        operators = sorted({error.node_operator() for error in errors if error.node_operator()})
        texts = dict.fromkeys(map(_told, errors))
        shown = "; ".join(list(texts)[:_SHOWN]) or messages.last
        more = f"; and {len(texts) - _SHOWN} more" if len(texts) > _SHOWN else ""
        of = f" (operators {', '.join(operators)})" if operators else ""
        raise UnsupportedError(
            f"the ONNX parser of {title} refuses the model{of}: {shown}{more}. Export it with "
            "this fasterseg, for int8 with --profile tensorrt; an operator of domain fasterseg "
            "needs its plugin or --plugins off"
        )
    return network


def _told(error: ParserError) -> str:
    reason = " ".join(error.desc().split()).rstrip(".")
    return f"{error.node_name() or f'node {error.node()}'}: {reason}"


def facts_of(network: Network) -> NetworkFacts:
    """Count layers, list what goes in and comes out."""
    return NetworkFacts(
        dict(Counter(layer.type.name for layer in _layers(network))),
        dict(map(_entry, (network.get_input(i) for i in range(network.num_inputs)))),
        dict(map(_entry, (network.get_output(i) for i in range(network.num_outputs)))),
    )


def _entry(tensor: Tensor) -> tuple[str, str]:
    return tensor.name, f"{tensor.dtype.name} {tuple(tensor.shape)}"


def _layers(network: Network) -> Iterator[Layer]:
    return (network.get_layer(index) for index in range(network.num_layers))


def check_types(network: Network, precision: Precision) -> None:
    """Prove that a network computes in `precision`: a walk over its layers.

    Raises:
        EngineMismatchError: it does not; the message names the first layer that does not.
    """
    layers = list(_layers(network))
    convolutions = [layer for layer in layers if layer.type.name == "CONVOLUTION"]
    if not convolutions:
        raise EngineMismatchError(
            f"the network has no convolution, so nothing shows that it is {precision}. Export it "
            "again: fasterseg export MODEL -o FILE.onnx"
        )
    if precision == "int8":
        _check_integers(layers, convolutions)
    else:
        _check_floats(layers, convolutions, precision)


def _check_floats(layers: list[Layer], convolutions: list[Layer], precision: Precision) -> None:
    wanted = _FLOATS[precision]
    for layer in convolutions:
        kinds = {tensor.dtype.name for tensor in _tensors(layer)}
        if kinds != {wanted}:
            raise _mismatch(precision, layer, "/".join(sorted(kinds)), wanted)
    for layer in layers:
        if layer.type.name in ("QUANTIZE", "DEQUANTIZE"):
            raise _mismatch(precision, layer, "int8", wanted)
        if layer.type.name == "PLUGIN_V3" or precision != "fp32":
            continue
        for tensor in _tensors(layer):
            # The last step hands out int8 ids, whatever the network computes in.
            if tensor.dtype.name in _NARROW - {"INT8"}:
                raise _mismatch(precision, layer, tensor.dtype.name, wanted)


def _check_integers(layers: list[Layer], convolutions: list[Layer]) -> None:
    producers = {
        tensor.name: layer
        for layer in layers
        for tensor in (layer.get_output(i) for i in range(layer.num_outputs))
        if tensor is not None
    }

    def is_dequantized(tensor: Tensor | None) -> bool:
        source = producers.get(tensor.name) if tensor is not None else None
        return source is not None and source.type.name == "DEQUANTIZE"

    for layer in convolutions:
        if not is_dequantized(layer.get_input(0)):
            raise _mismatch("int8", layer, "unquantised activations", "DEQUANTIZE before it")
    # The projection to logits keeps float weights; its sums decide between classes.
    floating = [
        layer
        for layer in convolutions
        if layer.num_inputs < 2 or not is_dequantized(layer.get_input(1))
    ]
    if len(floating) > 1:
        raise _mismatch("int8", floating[0], "float weights", "DEQUANTIZE before them")


def _tensors(layer: Layer) -> Iterator[Tensor]:
    inputs = (layer.get_input(i) for i in range(layer.num_inputs))
    outputs = (layer.get_output(i) for i in range(layer.num_outputs))
    return (tensor for tensor in (*inputs, *outputs) if tensor is not None)


def _mismatch(precision: str, layer: Layer, found: str, wanted: str) -> EngineMismatchError:
    return EngineMismatchError(
        f"{precision} was asked for, but layer {layer.name} ({layer.type.name}) has {found} where "
        f"{precision} has {wanted}: the graph is of another precision. Export it again: "
        f"fasterseg export MODEL --precision {precision}"
        + (" --profile tensorrt" if precision == "int8" else "")
        + " -o FILE.onnx"
    )
