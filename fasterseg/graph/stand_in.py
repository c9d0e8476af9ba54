"""int8 for timing: ranges that nobody measured, and operators whose results are held in integers.

How long an integer network takes does not depend on how far its activations reach, so latencies
may be measured with ranges that stand in for measured ones. Its labels mean nothing.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

import onnx
from onnx import TensorProto

import fasterseg
from fasterseg.graph.precision import SCHEMES, Flow, Profile, quantize
from fasterseg.graph.ranges import Range, Ranges

SOURCE: Final = "stand-in"
"""What tables and descriptions call such ranges."""

_REACH: Final = 4.0


def stand_in_ranges(
    graph: onnx.GraphProto, weights_sha256: str = "", also: Collection[str] = ()
) -> Ranges:
    """Ranges for every value that an int8 graph needs one for.

    Args:
        graph: in float32.
        weights_sha256: of its weights, where that will be checked.
        also: values that are to be held in integers though no convolution reads them.
    """
    flow = Flow(graph, also)

    def reach(name: str) -> Range:
        # A ReLU's zero point is 0, which some kernels are quicker with.
        producer = flow.producers.get(name)
        return (0.0 if producer is not None and producer.op_type == "Relu" else -_REACH, _REACH)

    return Ranges(
        values={name: reach(name) for name in flow.measured()},
        weights_sha256=weights_sha256,
        method=SOURCE,
        frames=0,
        frames_sha256="",
        size="",
        source=SOURCE,
        fasterseg=fasterseg.__version__,
    )


def quantize_single(
    graph: onnx.GraphProto, ends: Collection[str], profile: Profile
) -> onnx.GraphProto:
    """A graph of one operator in int8, its results held in integers as in a network.

    Args:
        graph: in float32; an output named like one of `ends` is given as integers, and one named
            `END/dq` as what these stand for.
        ends: values to be held in integers though no convolution reads them.
        profile: see `graph.precision.SCHEMES`.
    """
    made = quantize(graph, stand_in_ranges(graph, also=ends), profile, also=ends)
    kind = TensorProto.UINT8 if not SCHEMES[profile].symmetric else TensorProto.INT8
    for output in made.output:
        if output.name in ends:
            output.name = f"{output.name}/q"
            output.type.tensor_type.elem_type = kind
    return made
