"""The walk that proves a network's precision, over small networks of stand-in layers."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from fasterseg.errors import EngineMismatchError
from fasterseg.runtime.trt_network import check_types, facts_of
from fasterseg.types import Precision


def tensor(name: str, kind: str) -> Any:
    return SimpleNamespace(name=name, dtype=SimpleNamespace(name=kind), shape=(1, 8, 4, 4))


def layer(kind: str, inputs: list[Any], outputs: list[Any]) -> Any:
    return SimpleNamespace(
        name=f"{kind.lower()} of {outputs[0].name}",
        type=SimpleNamespace(name=kind),
        num_inputs=len(inputs),
        num_outputs=len(outputs),
        get_input=lambda index: inputs[index],
        get_output=lambda index: outputs[index],
    )


def network(*layers: Any) -> Any:
    ends = [tensor("frames", "UINT8")], [tensor("labels", "UINT8")]
    return SimpleNamespace(
        num_layers=len(layers),
        get_layer=lambda index: layers[index],
        num_inputs=1,
        num_outputs=1,
        get_input=lambda index: ends[0][index],
        get_output=lambda index: ends[1][index],
    )


def floats(kind: str) -> list[Any]:
    x, y = tensor("x", kind), tensor("y", kind)
    return [
        layer("CAST", [tensor("frames", "UINT8")], [x]),
        layer("CONVOLUTION", [x, None], [y]),
        layer("CAST", [y], [tensor("ids", "INT8")]),
    ]


def integers(weights: int = 2) -> list[Any]:
    """Two convolutions between Q and DQ; `weights` of them read dequantised weights."""
    layers = []
    for index in range(2):
        x, q, dq = (tensor(f"{name}{index}", "FLOAT") for name in ("x", "q", "dq"))
        w, y = tensor(f"w{index}", "FLOAT"), tensor(f"y{index}", "FLOAT")
        layers += [layer("QUANTIZE", [x], [q]), layer("DEQUANTIZE", [q], [dq])]
        if index < weights:
            layers += [layer("DEQUANTIZE", [tensor("c", "INT8")], [w])]
        layers += [layer("CONVOLUTION", [dq, w], [y])]
    return layers


@pytest.mark.parametrize(
    ("precision", "layers"),
    [("fp32", floats("FLOAT")), ("fp16", floats("HALF")), ("int8", integers(2)),
     ("int8", integers(1))],
)  # fmt: skip
def test_a_network_of_the_precision_passes(precision: Precision, layers: list[Any]) -> None:
    check_types(network(*layers), precision)


@pytest.mark.parametrize(
    ("precision", "layers", "message"),
    [
        ("fp16", floats("FLOAT"), r"fp16 was asked for.*convolution of y.*FLOAT where.*HALF"),
        ("fp32", floats("HALF"), r"HALF where fp32 has FLOAT"),
        ("fp16", [*floats("HALF")[:2], *floats("FLOAT")], "FLOAT"),
        ("int8", floats("FLOAT"), r"unquantised activations.*--profile tensorrt"),
        ("int8", integers(0), "float weights"),
        ("fp32", [*floats("FLOAT"), *integers()], "int8 where fp32 has FLOAT"),
        ("fp32", [*floats("FLOAT"), layer("UNARY", [tensor("a", "HALF")], [tensor("b", "HALF")])],
         "unary of b"),
        ("fp32", [], "no convolution"),
    ],
)  # fmt: skip
def test_a_network_of_another_precision_is_refused(
    precision: Precision, layers: list[Any], message: str
) -> None:
    with pytest.raises(EngineMismatchError, match=message):
        check_types(network(*layers), precision)


def test_layers_are_counted_and_ends_listed() -> None:
    facts = facts_of(network(*integers()))
    assert facts.layers == {"QUANTIZE": 2, "DEQUANTIZE": 4, "CONVOLUTION": 2}
    assert facts.inputs == {"frames": "UINT8 (1, 8, 4, 4)"}
    assert list(facts.outputs) == ["labels"]
