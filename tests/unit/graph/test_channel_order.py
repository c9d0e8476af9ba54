from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from fasterseg.graph.channel_order import move_into_weights
from fasterseg.graph.emit import EmitOptions
from fasterseg.runtime.model import resolve_model
from fasterseg.runtime.store import onnx_bytes
from fasterseg.types import Precision, Size

pytestmark = pytest.mark.onnx

FRAMES = np.random.default_rng(0).integers(0, 256, (1, 64, 96, 3), np.uint8)


def gathers_on_pictures(data: bytes) -> int:
    nodes = onnx.load_from_string(data).graph.node
    return sum(
        node.op_type == "Gather" and any(a.name == "axis" and a.i == 1 for a in node.attribute)
        for node in nodes
    )


def run(data: bytes, fed: NDArray[Any]) -> NDArray[Any]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    given: NDArray[Any] = session.run(None, {session.get_inputs()[0].name: fed})[0]
    return given


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_the_swap_is_gone_and_the_logits_stay(precision: Precision) -> None:
    options = EmitOptions(stage="logits8", precision=precision, inline=True)
    before = onnx_bytes(resolve_model("fasterseg-camvid"), Size(64, 96), options)
    after = move_into_weights(before)
    assert (gathers_on_pictures(before), gathers_on_pictures(after)) == (1, 0)
    expected = run(before, FRAMES)
    # Integer sums do not depend on their order.
    tolerance = 0.0 if precision == "int8" else 1e-5 * float(np.abs(expected).max())
    np.testing.assert_allclose(run(after, FRAMES), expected, rtol=0, atol=tolerance)
    assert np.abs(expected).max() > 1


def test_a_graph_without_a_swap_is_left_alone() -> None:
    options = EmitOptions(stage="network", inline=True)
    data = onnx_bytes(resolve_model("fasterseg-camvid"), Size(64, 96), options)
    assert move_into_weights(data) is data


def small(
    steps: list[onnx.NodeProto], constants: dict[str, NDArray[Any]], output: str = "y"
) -> bytes:
    """Three planes, swapped to 2, 0, 1; then `steps`, whose last one gives `output`."""
    arrays = {"order": np.array([2, 0, 1], np.int64), **constants}
    graph = helper.make_graph(
        [helper.make_node("Gather", ["x", "order"], ["swapped"], axis=1), *steps],
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 6, 6])],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    result: bytes = model.SerializeToString()
    return result


RANDOM = np.random.default_rng(1)
WEIGHT = RANDOM.standard_normal((4, 3, 3, 3)).astype(np.float32)
MEAN = RANDOM.standard_normal((3, 1, 1)).astype(np.float32)
PICTURE = RANDOM.standard_normal((1, 3, 6, 6)).astype(np.float32)


def conv(data: str, group: int = 1) -> onnx.NodeProto:
    return helper.make_node("Conv", [data, "w"], ["y"], group=group)


def test_any_order_moves_and_a_constant_on_the_left_moves_along() -> None:
    steps = [helper.make_node("Sub", ["mean", "swapped"], ["centred"]), conv("centred")]
    before = small(steps, {"w": WEIGHT, "mean": MEAN})
    after = move_into_weights(before)
    assert gathers_on_pictures(after) == 0
    np.testing.assert_allclose(run(after, PICTURE), run(before, PICTURE), atol=1e-5)


@pytest.mark.parametrize(
    ("steps", "constants"),
    [
        # another reader of the swapped picture
        ([conv("swapped"), helper.make_node("Add", ["swapped", "swapped"], ["z"])], {"w": WEIGHT}),
        # an operand that is not one value per channel
        (
            [helper.make_node("Sub", ["swapped", "m"], ["c"]), conv("c")],
            {"w": WEIGHT, "m": np.ones((3, 6, 6), np.float32)},
        ),
        # something that mixes channels
        ([helper.make_node("Softmax", ["swapped"], ["s"], axis=1), conv("s")], {"w": WEIGHT}),
        # groups
        (
            [conv("swapped", group=3)],
            {"w": RANDOM.standard_normal((3, 1, 3, 3)).astype(np.float32)},
        ),
    ],
)
def test_what_cannot_move_stays(
    steps: list[onnx.NodeProto], constants: dict[str, NDArray[Any]]
) -> None:
    data = small(steps, constants)
    assert move_into_weights(data) is data


def test_a_weight_that_two_convolutions_share_stays() -> None:
    other = helper.make_node("Conv", ["x", "w"], ["other"])
    data = small([conv("swapped"), other], {"w": WEIGHT})
    assert move_into_weights(data) is data


def test_a_choice_of_some_channels_is_no_swap() -> None:
    data = small([conv("swapped")], {"w": WEIGHT, "order": np.array([2, 0, 0], np.int64)})
    assert move_into_weights(data) is data
