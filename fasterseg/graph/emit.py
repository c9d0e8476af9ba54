"""A plan and its weights to an ONNX model, node by node; nothing is traced.

Three stages over one set of weights:

- `labels`: uint8 BGR frames (N, H, W, 3) -> uint8 class ids (N, H, W), all in the graph;
- `logits8`: the same input -> float32 logits at 1/8, for a kernel that finishes outside;
- `network`: normalised RGB float32 (N, 3, H, W) -> float32 logits (N, classes, H, W).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnx.inliner import inline_local_functions

from fasterseg.arch.operators import (
    OPERATORS,
    Concat,
    Conv,
    Half,
    Layer,
    Normalize,
    OpSpec,
    Project,
    Relu,
    Resize,
    Restore,
    Skip,
    UpsampleArgmax,
    expand,
)
from fasterseg.arch.plan import Plan
from fasterseg.errors import UsageError
from fasterseg.graph.functions import (
    DOMAIN,
    PLUGIN_VERSION,
    model_of,
    normalize_bgr,
    upsample_argmax,
    zoomed_conv,
)
from fasterseg.graph.precision import Profile, quantize, quantized_values
from fasterseg.graph.ranges import Ranges
from fasterseg.graph.signature import INPUT_NAMES, OUTPUT_NAMES, Stage, signature
from fasterseg.graph.weights import Weights, fold, weights_sha256
from fasterseg.preprocess import MEAN, STD
from fasterseg.types import Precision, Size

EMITTED: Final[tuple[Precision, ...]] = ("fp32", "fp16", "int8")
"""Precisions that can be emitted."""

SCALE: Final = 8
_HALF: Final = "fp16"


@dataclass(frozen=True, slots=True)
class EmitOptions:
    """How a graph is to be written.

    Attributes:
        stage: what goes in and comes out (see the module).
        precision: type of weights and activations inside: "fp32", "fp16", or "int8" (Q/DQ).
        batch: frames per call.
        dynamic: leave batch, height and width free (resizes then compute their sizes).
        inline: plain operators instead of model-local functions, for runtimes that do not take
            them.
        profile: how int8 is written: "cpu" (uint8, asymmetric activations, for ONNX Runtime and
            OpenVINO) or "tensorrt" (int8, zero point 0); nothing in other precisions.
    """

    stage: Stage = "labels"
    precision: Precision = "fp32"
    batch: int = 1
    dynamic: bool = False
    inline: bool = False
    profile: Profile = "cpu"


def emit(
    plan: Plan,
    weights: Weights,
    options: EmitOptions | None = None,
    metadata: Mapping[str, str] | None = None,
    *,
    ranges: Ranges | None = None,
) -> onnx.ModelProto:
    """Write the ONNX model of a plan.

    Args:
        plan: the network at the size of the frames.
        weights: checked against the plan (`graph.weights`); batch norm is folded here.
        options: stage, precision, batch; fp32 labels of one frame by default.
        metadata: key -> text, stored in the file's metadata properties.
        ranges: of the activations, measured with these weights; needed for int8 alone.

    Returns:
        A model that passes `onnx.checker`.

    Raises:
        UsageError: a precision that cannot be emitted, or int8 without ranges.
        WeightsError: the ranges belong to other weights.
    """
    options = options or EmitOptions()
    if options.precision not in EMITTED:
        raise UsageError(
            f"precision {options.precision} cannot be emitted; choose one of {', '.join(EMITTED)}"
        )
    writer = Writer(plan, options)
    graph = writer.write(weights)
    if options.precision == "int8":
        if ranges is None:
            raise UsageError(
                "int8 needs the ranges of the activations. Measure them on frames like those to "
                "come: fasterseg calibrate MODEL --images PATH"
            )
        ranges.check(quantized_values(graph), weights_sha256(plan, weights))
        graph = quantize(graph, ranges, options.profile)
    model = model_of(graph, writer.functions.values())
    if options.inline:
        model = inline_local_functions(model)
    for key, value in (metadata or {}).items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value
    return model


@dataclass
class Writer:
    """Collects nodes and initialisers of one graph."""

    plan: Plan
    options: EmitOptions
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    initializers: dict[str, TensorProto] = field(default_factory=dict)
    functions: dict[str, onnx.FunctionProto] = field(default_factory=dict)

    def write(self, weights: Weights) -> onnx.GraphProto:
        """The whole network between the ends of its stage."""
        self.lay(weights)
        taken, given = signature(
            self.plan, self.options.stage, self.options.batch, self.options.dynamic
        )
        return helper.make_graph(
            self.nodes,
            self.plan.genotype.name,
            inputs=[taken],
            outputs=[given],
            initializer=list(self.initializers.values()),
        )

    def lay(self, weights: Weights, fed: Mapping[int, list[str]] | None = None) -> dict[int, str]:
        """Write every node of the plan; returns the name of each one's output.

        Args:
            weights: of the plan.
            fed: node -> values that it reads instead of the outputs of its inputs.
        """
        kind = np.float16 if self.options.precision == _HALF else np.float32
        for name, (weight, bias) in fold(self.plan, weights).items():
            self._array(f"{name}.weight", weight.astype(kind))
            single = self._is_one_node(self.plan.by_role[name.rpartition(".")[0]].spec)
            self._array(f"{name}.bias", bias.astype(np.float32 if single else kind))
        values: dict[int, str] = {}
        for node in self.plan.nodes:
            inputs = (fed or {}).get(node.id) or [values[source] for source in node.inputs]
            values[node.id] = self._operator(node.role, node.spec, inputs)
        return values

    # --- values -------------------------------------------------------------------------------

    def _array(self, name: str, values: NDArray[np.generic]) -> str:
        self.initializers.setdefault(name, numpy_helper.from_array(np.asarray(values), name))
        return name

    def _ints(self, *values: int) -> str:
        name = "ints." + "_".join(str(v) for v in values)
        return self._array(name, np.asarray(values, np.int64))

    def _node(self, op: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(op, inputs, [output], name=output, **attributes))
        return output

    def _call(
        self, function: onnx.FunctionProto, inputs: list[str], output: str, **attributes: Any
    ) -> str:
        """A node that one of our functions defines."""
        self.functions[function.name] = function
        return self._node(function.name, inputs, output, domain=DOMAIN, **attributes)

    # --- operators ----------------------------------------------------------------------------

    def _operator(self, role: str, spec: OpSpec, inputs: list[str]) -> str:
        """Write one operator; returns the name of its output."""
        if self._is_one_node(spec):
            return self._zoomed(role, spec, inputs[0])
        maps = list(inputs)
        for index, layer in enumerate(expand(spec)):
            name = f"{role}/{index}.{type(layer.step).__name__.lower()}"
            match layer.step:
                case Normalize():
                    maps = [self._input()]
                case UpsampleArgmax():
                    maps = [self._output(maps[0])]
                case Conv(kernel=kernel):
                    maps = [self._conv(name, role, layer, layer.name, maps[0], kernel)]
                case Project():
                    maps = [self._conv(name, role, layer, layer.name, maps[0], kernel=1)]
                case Relu():
                    maps = [self._node("Relu", maps[:1], name)]
                case Half():
                    maps = [self._half(name, maps[0], layer)]
                case Restore():
                    maps = [self._resize(name, maps[0], layer.out_size, like=inputs[0], of=layer)]
                case Resize():
                    maps[0] = self._resize(name, maps[0], layer.out_size, like=inputs[1], of=None)
                case Concat():
                    if len(maps) > 1:
                        maps = [self._node("Concat", maps, name, axis=1)]
                case Skip():
                    maps = [self._skip(name, role, layer, maps[0])]
        return maps[0]

    def _is_one_node(self, spec: OpSpec) -> bool:
        """Whether the operator is a zoomed one, and its insides need not be seen."""
        options = self.options
        plain = options.inline or options.dynamic or options.precision == "int8"
        return not plain and any(isinstance(step, Half) for step in OPERATORS[spec.op])

    def _zoomed(self, role: str, spec: OpSpec, x: str) -> str:
        layers = expand(spec)
        convs = [layer.name for layer in layers if isinstance(layer.step, Conv)]
        arrays = [f"{role}.{name}.{kind}" for name in convs for kind in ("weight", "bias")]
        half, out = layers[0].out_size, layers[-1].out_size
        sizes = {"half_sizes": [self.options.batch, spec.in_channels, *half]}
        if spec.stride == 1:
            sizes["out_sizes"] = [self.options.batch, spec.out_channels, *out]
        return self._call(
            zoomed_conv(len(convs), spec.stride),
            [x, *arrays],
            f"{role}/{len(layers) - 1}.relu",  # as among plain operators
            **sizes,
            plugin_version=PLUGIN_VERSION,
            plugin_namespace=DOMAIN,
        )

    def _conv(self, name: str, role: str, layer: Layer, weights: str, x: str, kernel: int) -> str:
        return self._node(
            "Conv",
            [x, f"{role}.{weights}.weight", f"{role}.{weights}.bias"],
            name,
            kernel_shape=[kernel, kernel],
            strides=[layer.stride, layer.stride],
            pads=[kernel // 2] * 4,
        )

    def _skip(self, name: str, role: str, layer: Layer, x: str) -> str:
        if layer.is_identity:
            return x
        first = self._conv(f"{name}.0", role, layer, "conv1", x, kernel=1)
        if layer.stride == 1:
            return self._node("Relu", [first], name)
        ends = self._ints(2**31 - 1, 2**31 - 1)
        shifted = self._node(
            "Slice", [x, self._ints(1, 1), ends, self._ints(2, 3)], f"{name}.shift"
        )
        second = self._conv(f"{name}.1", role, layer, "conv2", shifted, kernel=1)
        # Before the join, where runtimes merge a ReLU into its convolution.
        halves = [self._node("Relu", [half], f"{half}.relu") for half in (first, second)]
        return self._node("Concat", halves, name, axis=1)

    def _half(self, name: str, x: str, layer: Layer) -> str:
        if not self.options.dynamic:
            return self._resize(name, x, layer.out_size, like="", of=layer)
        scales = self._array("scales.half", np.asarray([1.0, 1.0, 0.5, 0.5], np.float32))
        return self._linear(name, [x, "", scales])

    def _resize(self, name: str, x: str, size: Size, like: str, of: Layer | None) -> str:
        """Bilinear, align_corners, to `size` or, in a dynamic graph, to the size of `like`."""
        if self.options.dynamic:
            channels = self._node("Shape", [x], f"{name}.nc", start=0, end=2)
            rows = self._node("Shape", [like], f"{name}.hw", start=2, end=4)
            sizes = self._node("Concat", [channels, rows], f"{name}.sizes", axis=0)
        else:
            channels_out = of.out_channels if of else self._channels(x)
            sizes = self._ints(self.options.batch, channels_out, size.height, size.width)
        return self._linear(name, [x, "", "", sizes])

    def _channels(self, value: str) -> int:
        """Channels of an operator's output, from the name of the value."""
        return self.plan.by_role[value.partition("/")[0]].spec.out_channels

    def _linear(self, name: str, inputs: list[str]) -> str:
        return self._node(
            "Resize",
            inputs,
            name,
            mode="linear",
            coordinate_transformation_mode="align_corners",
        )

    # --- the two ends -------------------------------------------------------------------------

    def _input(self) -> str:
        """The normalised picture: value "input" in every stage."""
        x = "input"
        if self.options.stage != "network":
            self._call(normalize_bgr(), ["frames"], x, mean=MEAN, std=STD, order=[2, 1, 0])
        if self.options.precision == _HALF:
            x = self._node("Cast", [x], "input/cast", to=TensorProto.FLOAT16)
        return x

    def _output(self, logits: str) -> str:
        name = OUTPUT_NAMES[self.options.stage]
        if self.options.stage == "labels":
            ids = self._call(
                upsample_argmax(SCALE),
                [logits],
                "output/ids",
                scale=SCALE,
                plugin_version=PLUGIN_VERSION,
                plugin_namespace=DOMAIN,
            )
            cropped = self._crop(ids, "output/crop", axes=(1, 2))
            return self._node("Cast", [cropped], name, to=TensorProto.UINT8)
        if self.options.stage == "logits8":
            return self._node("Cast", [logits], name, to=TensorProto.FLOAT)
        single = self._node("Cast", [logits], "output/single", to=TensorProto.FLOAT)
        scales = self._array("scales.full", np.asarray([1.0, 1.0, SCALE, SCALE], np.float32))
        full = self._linear("output/full", [single, "", scales])
        cropped = self._crop(full, "output/crop", axes=(2, 3))
        return self._node("Identity", [cropped], name)

    def _crop(self, x: str, name: str, axes: tuple[int, int]) -> str:
        """Cut what the ceiling to multiples of 8 added; nothing where it added nothing."""
        size = self.plan.size
        if self.options.dynamic:
            stage = self.options.stage
            source, start = INPUT_NAMES[stage], 2 if stage == "network" else 1
            ends = self._node("Shape", [source], f"{name}.size", start=start, end=start + 2)
        elif size.height % SCALE or size.width % SCALE:
            ends = self._ints(size.height, size.width)
        else:
            return x
        return self._node("Slice", [x, self._ints(0, 0), ends, self._ints(*axes)], name)
