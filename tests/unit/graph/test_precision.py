"""int8 graphs: what is held in integers, how it is written, and that the network survives it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper

from fasterseg.arch.plan import Plan, plan
from fasterseg.errors import UsageError, WeightsError
from fasterseg.graph.emit import EmitOptions, emit
from fasterseg.graph.precision import (
    PROFILES,
    SCHEMES,
    Profile,
    activation_scale,
    expose,
    quantize_weights,
    quantized_values,
)
from fasterseg.graph.ranges import Range, Ranges
from fasterseg.graph.signature import STAGES, Stage
from fasterseg.graph.weights import Weights, weights_sha256
from fasterseg.preprocess import normalize
from fasterseg.runtime.model import resolve_model
from fasterseg.streets import images
from fasterseg.types import Size
from tests.parity import balanced, random_genotype, run_onnx, street_like
from tests.shared import zoo_genotype

pytestmark = pytest.mark.onnx

SIZE = Size(128, 192)
NETWORKS = ("student", "teacher", "random-0", "random-1", "random-2", "random-4", "random-7")


@dataclass(frozen=True)
class Case:
    """A network with weights, frames, and the ranges they lead to."""

    plan: Plan
    weights: Weights
    frames: NDArray[np.uint8]
    ranges: Ranges

    def emit(self, profile: Profile = "cpu", **options: object) -> onnx.ModelProto:
        chosen = replace(EmitOptions(precision="int8", profile=profile), **options)  # type: ignore[arg-type]
        return emit(self.plan, self.weights, chosen, ranges=self.ranges)


def measured(network: Plan, weights: Weights, frames: NDArray[np.uint8]) -> Ranges:
    model = emit(network, weights, EmitOptions("logits8", batch=len(frames), inline=True))
    names = quantized_values(model.graph)
    session = onnxruntime.InferenceSession(
        expose(model, names).SerializeToString(), providers=["CPUExecutionProvider"]
    )
    maps = session.run(names, {"frames": frames})
    values: dict[str, Range] = {
        name: (min(0.0, float(found.min())), max(0.0, float(found.max())))
        for name, found in zip(names, maps, strict=True)
    }
    sha256 = weights_sha256(network, weights)
    return Ranges(values, sha256, "minmax", len(frames), "", str(network.size), "a test", "")


@cache
def made(name: str) -> Case:
    kind, _, seed = name.partition("-")
    genotype = random_genotype(int(seed)) if kind == "random" else zoo_genotype(f"fasterseg-{name}")
    network, frames = plan(genotype, SIZE), street_like(SIZE)
    weights = balanced(network, frames)
    return Case(network, weights, frames, measured(network, weights, frames))


@pytest.fixture(params=NETWORKS)
def case(request: pytest.FixtureRequest) -> Case:
    return made(request.param)


@pytest.fixture(params=PROFILES)
def profile(request: pytest.FixtureRequest) -> Profile:
    chosen: Profile = request.param
    return chosen


def constants(model: onnx.ModelProto) -> Mapping[str, NDArray[np.generic]]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def activations(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    return [node for node in model.graph.node if node.op_type == "QuantizeLinear"]


# --- numbers -----------------------------------------------------------------------------------

REACHES = [(0.0, 22.6), (-6.15, 10.57), (-3.0, 0.0), (-1e-9, 1e6), (0.0, 1e-12), (0.0, 0.0)]


@pytest.mark.parametrize("reach", REACHES)
def test_zero_is_exact_and_the_ends_are_within_half_a_step(profile: Profile, reach: Range) -> None:
    scheme = SCHEMES[profile]
    scale, zero_point = activation_scale(scheme, reach)
    limits = np.iinfo(scheme.dtype)
    assert zero_point.dtype == scheme.dtype
    assert scale > 0
    for value in (*reach, 0.0):
        step = int(np.clip(np.rint(value / scale) + int(zero_point), limits.min, limits.max))
        back = (step - int(zero_point)) * float(scale)
        assert abs(back - value) <= (0.0 if value == 0 else 0.51 * float(scale))


def test_tensorrt_activations_are_signed_around_zero() -> None:
    scale, zero_point = activation_scale(SCHEMES["tensorrt"], (-1.0, 12.7))
    assert (int(zero_point), zero_point.dtype) == (0, np.dtype(np.int8))
    assert scale == pytest.approx(0.1)


def test_a_relu_is_the_lower_end_of_unsigned_activations() -> None:
    # ONNX Runtime drops a ReLU before a quantiser only where the zero point is the least value.
    scale, zero_point = activation_scale(SCHEMES["cpu"], (0.0, 25.5))
    assert scale == pytest.approx(0.1)
    assert int(zero_point) == np.iinfo(np.uint8).min


def test_weights_are_half_a_step_from_the_float_ones_per_channel() -> None:
    random = np.random.default_rng(0)
    weight = random.standard_normal((5, 7, 3, 3)).astype(np.float32)
    weight *= np.asarray([1e-4, 1.0, 30.0, 0.0, 1.0], np.float32)[:, None, None, None]
    steps, scales = quantize_weights(weight)
    assert steps.dtype == np.int8
    assert scales.shape == (5,)
    assert np.abs(steps).max() == 127
    back = steps * scales[:, None, None, None]
    assert (np.abs(back - weight).max(axis=(1, 2, 3)) <= 0.5001 * scales).all()
    assert not back[3].any()


# --- graphs ------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("inline", [False, True])
def test_every_int8_graph_is_valid_onnx(
    profile: Profile, stage: Stage, dynamic: bool, inline: bool
) -> None:
    case = made("random-2")
    model = case.emit(profile, stage=stage, dynamic=dynamic, inline=inline)
    onnx.checker.check_model(model, full_check=True)
    domains = {node.domain for node in model.graph.node}
    assert domains <= ({""} if inline or stage == "network" else {"", "fasterseg"})


def test_every_network_is_valid_onnx_in_int8(case: Case, profile: Profile) -> None:
    onnx.checker.check_model(case.emit(profile), full_check=True)


def test_the_cpu_profile_is_unsigned_with_integer_biases(case: Case) -> None:
    model = case.emit("cpu")
    stored = constants(model)
    assert {stored[node.input[2]].dtype for node in activations(model)} == {np.dtype(np.uint8)}
    biases = [value for name, value in stored.items() if name.endswith(".bias/q")]
    assert biases
    assert {value.dtype for value in biases} == {np.dtype(np.int32)}


def test_the_tensorrt_profile_has_no_zero_point_but_0_and_float_biases(case: Case) -> None:
    model = case.emit("tensorrt")
    stored = constants(model)
    zeros = [stored[node.input[2]] for node in activations(model)]
    assert zeros
    assert all(zero.dtype == np.int8 and not zero.any() for zero in zeros)
    assert {v.dtype for k, v in stored.items() if ".bias" in k} == {np.dtype(np.float32)}
    assert not [name for name in stored if name.endswith(".bias/q")]


def test_weights_are_int8_per_channel_but_for_the_projection(case: Case, profile: Profile) -> None:
    stored = constants(case.emit(profile))
    floats = {name for name, value in stored.items() if value.ndim == 4 and value.dtype.kind == "f"}
    assert floats == {"head.project.weight"}
    for name, value in stored.items():
        if value.ndim == 4 and name not in floats:
            assert value.dtype == np.int8
            assert stored[name.replace("/q", "/scale")].shape == (value.shape[0],)
            assert not stored[name.replace("/q", "/zero")].any()


def test_what_is_only_moved_keeps_its_scale(case: Case, profile: Profile) -> None:
    model = case.emit(profile)
    stored = constants(model)
    scale_of = {
        node.input[0]: (stored[node.input[1]].item(), stored[node.input[2]].item())
        for node in activations(model)
    }
    moved = 0
    for node in model.graph.node:
        if node.op_type in ("Concat", "Resize", "Slice") and node.output[0] in scale_of:
            maps = node.input if node.op_type == "Concat" else node.input[:1]
            assert {scale_of[name.removesuffix("/dq")] for name in maps} == {
                scale_of[node.output[0]]
            }
            moved += 1
    assert moved >= 3


def test_onnx_runtime_computes_every_convolution_but_the_projection_in_integers(
    case: Case, tmp_path: Path
) -> None:
    model = case.emit("cpu", stage="logits8")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    kinds = Counter(node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node)
    convolutions = sum(node.op_type == "Conv" for node in model.graph.node)
    assert kinds["QLinearConv"] == convolutions - 1
    assert kinds["Conv"] + kinds["FusedConv"] == 1


def test_the_same_ranges_give_the_same_bytes(profile: Profile) -> None:
    case = made("student")
    first, second = (case.emit(profile).SerializeToString(deterministic=True) for _ in range(2))
    assert first == second


def test_ranges_of_other_weights_or_none_are_refused() -> None:
    case = made("random-0")
    options = EmitOptions(precision="int8")
    with pytest.raises(UsageError, match="fasterseg calibrate"):
        emit(case.plan, case.weights, options)
    others = {**case.weights, "head.project.bias": case.weights["head.project.bias"] + 1}
    with pytest.raises(WeightsError, match="fasterseg calibrate"):
        emit(case.plan, others, options, ranges=case.ranges)


# --- the network survives ----------------------------------------------------------------------


def test_static_and_dynamic_graphs_of_every_stage_agree(profile: Profile) -> None:
    case = made("student")
    labels = run_onnx(case.emit(profile), frames=case.frames)
    dynamic = run_onnx(case.emit(profile, dynamic=True), frames=case.frames)
    bare = run_onnx(case.emit(profile, stage="network"), input=normalize(case.frames))
    assert np.mean(dynamic == labels) >= 0.999
    assert np.mean(bare.argmax(axis=1) == labels) >= 0.999


SHIPPED_SIZE = Size(256, 384)
SHIPPED_AGREEMENT = 0.985


@cache
def shipped() -> Case:
    model = resolve_model("fasterseg-camvid")
    network = plan(model.genotype, SHIPPED_SIZE)
    frames = np.stack([image for image, _ in images(seed=993, count=2, size=SHIPPED_SIZE)])
    return Case(network, model.load_weights(network), frames, model.load_ranges())


@cache
def shipped_labels() -> NDArray[np.generic]:
    case = shipped()
    model = emit(case.plan, case.weights, EmitOptions(batch=len(case.frames)))
    labels = run_onnx(model, frames=case.frames)
    assert len(np.unique(labels)) >= 8
    return labels


def agreement(case: Case, profile: Profile) -> float:
    labels = run_onnx(case.emit(profile, batch=len(case.frames)), frames=case.frames)
    return float(np.mean(labels == shipped_labels()))


def test_the_shipped_weights_keep_their_labels(profile: Profile) -> None:
    assert agreement(shipped(), profile) >= SHIPPED_AGREEMENT


@pytest.mark.parametrize("factor", [0.1, 30.0])
def test_wrong_ranges_lose_the_labels(profile: Profile, factor: float) -> None:
    case = shipped()
    values = {
        name: (low * factor, high * factor) for name, (low, high) in case.ranges.values.items()
    }
    wrong = replace(case, ranges=replace(case.ranges, values=values))
    assert agreement(wrong, profile) < SHIPPED_AGREEMENT
