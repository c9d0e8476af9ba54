"""What goes into a graph and comes out of it, by stage."""

from __future__ import annotations

from typing import Final, Literal, get_args

import onnx
from onnx import TensorProto, helper

from fasterseg.arch.plan import Plan

Stage = Literal["labels", "logits8", "network"]
STAGES: Final[tuple[Stage, ...]] = get_args(Stage)

INPUT_NAMES: Final[dict[Stage, str]] = {"labels": "frames", "logits8": "frames", "network": "input"}
OUTPUT_NAMES: Final[dict[Stage, str]] = {
    "labels": "labels",
    "logits8": "logits8",
    "network": "logits",
}

Dim = str | int


def signature(
    plan: Plan, stage: Stage, batch: int, dynamic: bool
) -> tuple[onnx.ValueInfoProto, onnx.ValueInfoProto]:
    """Input and output of a stage; batch, height and width bear names in a dynamic graph."""
    frames: tuple[Dim, Dim, Dim]
    eighth: tuple[Dim, Dim]
    if dynamic:
        frames, eighth = ("batch", "height", "width"), ("height8", "width8")
    else:
        frames, eighth = (batch, *plan.size), (*plan.logits_size,)
    classes = plan.genotype.num_classes
    planes = (TensorProto.FLOAT, [frames[0], 3, *frames[1:]])
    pictures = (TensorProto.UINT8, [*frames, 3])
    outputs: dict[Stage, tuple[int, list[Dim]]] = {
        "labels": (TensorProto.UINT8, [*frames]),
        "logits8": (TensorProto.FLOAT, [frames[0], classes, *eighth]),
        "network": (TensorProto.FLOAT, [frames[0], classes, *frames[1:]]),
    }
    taken = planes if stage == "network" else pictures
    return (
        helper.make_tensor_value_info(INPUT_NAMES[stage], *taken),
        helper.make_tensor_value_info(OUTPUT_NAMES[stage], *outputs[stage]),
    )
