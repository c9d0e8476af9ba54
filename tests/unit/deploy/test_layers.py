"""The first layer where two engines part: found exactly, marked once, in bounded memory."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any, cast

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

pytest.importorskip("polygraphy", reason="polygraphy not installed")

from fasterseg.deploy import layers as module
from fasterseg.deploy.layers import (
    RMS_TOLERANCE,
    LayerDifference,
    LayerReport,
    Side,
    chunks,
    compare_layers,
)
from fasterseg.errors import UsageError
from fasterseg.graph.emit import EmitOptions
from fasterseg.graph.values import Layer, ValueGraph
from fasterseg.runtime.base import Engine
from fasterseg.runtime.model import resolve_model
from fasterseg.runtime.onnxrt import OnnxRuntimeEngine
from fasterseg.runtime.select import EngineRequest
from fasterseg.runtime.store import onnx_bytes
from fasterseg.streets import images
from fasterseg.types import Precision, Size

pytestmark = pytest.mark.onnx

SIZE = Size(128, 192)
FRAMES = [image for image, _ in images(seed=0, count=2, size=SIZE)]

Change = Callable[[onnx.ModelProto], None]


@cache
def exported(precision: Precision = "fp32", inline: bool = True) -> bytes:
    options = EmitOptions(precision=precision, inline=inline)
    return onnx_bytes(resolve_model("fasterseg-camvid"), SIZE, options)


def side(data: bytes) -> Side:
    engine = cast("Engine", OnnxRuntimeEngine.open(data, "cpu", 1))
    return Side(engine, ValueGraph(data, SIZE), 1)


def changed(change: Change) -> bytes:
    model = onnx.load_from_string(exported())
    change(model)
    data: bytes = model.SerializeToString()
    return data


def halve_a_weight(model: onnx.ModelProto) -> None:
    tensor = next(t for t in model.graph.initializer if t.name == "cell.5.1.conv2.weight")
    values = numpy_helper.to_array(tensor).copy()
    values[0] *= 0.5
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


def use_half_pixels(model: onnx.ModelProto) -> None:
    node = next(n for n in model.graph.node if n.output[0] == "cell.6.1/4.restore")
    mode = next(a for a in node.attribute if a.name == "coordinate_transformation_mode")
    mode.s = b"half_pixel"


def swap_colours(model: onnx.ModelProto) -> None:
    node = next(n for n in model.graph.node if n.op_type == "Gather")
    order = next(n for n in model.graph.node if n.output[0] == node.input[1])
    order.attribute[0].ints[:] = [0, 1, 2]


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (halve_a_weight, "cell.5.1/2.conv"),
        (use_half_pixels, "cell.6.1/4.restore"),
        (swap_colours, "input"),
    ],
)
def test_a_change_in_the_middle_is_found_at_its_layer(change: Change, name: str) -> None:
    report = compare_layers(side(exported()), side(changed(change)), FRAMES)
    assert report.first is not None
    assert report.first.name == name
    before = report.layers[: report.layers.index(report.first)]
    assert all(layer.max_abs == 0 for layer in before)


def test_int8_stays_within_its_tolerance_and_beyond_that_of_fp32() -> None:
    report = compare_layers(side(exported()), side(exported("int8")), FRAMES)
    assert (report.first, report.tolerance) == (None, RMS_TOLERANCE["int8"])
    assert len(report.layers) == 119
    assert report.unmatched == ()
    assert all(layer.relative_rms > RMS_TOLERANCE["fp32"] for layer in report.layers)


def test_fp16_is_nearer_than_int8() -> None:
    report = compare_layers(side(exported()), side(exported("fp16")), FRAMES[:1])
    assert report.first is None
    assert max(layer.relative_rms for layer in report.layers) < RMS_TOLERANCE["fp16"] / 3


def test_int8_with_scrambled_weights_is_found_at_their_layer() -> None:
    model = onnx.load_from_string(exported("int8"))
    tensor = next(t for t in model.graph.initializer if t.name == "cell.5.1.conv2.weight/q")
    tensor.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(tensor), tensor.name))
    report = compare_layers(side(exported()), side(model.SerializeToString()), FRAMES[:1])
    assert report.first is not None
    assert report.first.name == "cell.5.1/2.conv"


def test_functions_hide_their_insides_and_show_their_results() -> None:
    report = compare_layers(side(exported()), side(exported(inline=False)), FRAMES[:1])
    assert report.first is None
    assert len(report.layers) == 63
    assert "cell.6.1/3.conv" in report.unmatched
    assert "cell.6.1/5.relu" in {layer.name for layer in report.layers}


def test_chunks_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    pair = side(exported()), side(exported("int8"))
    whole = compare_layers(*pair, FRAMES[:1])
    asked: list[int] = []
    giving = ValueGraph.giving

    def counted(self: ValueGraph, names: Any) -> bytes:
        asked.append(len(list(names)))
        return giving(self, names)

    monkeypatch.setattr(ValueGraph, "giving", counted)
    monkeypatch.setattr(module, "CHUNK_BYTES", 1 << 20)
    parts = compare_layers(*pair, FRAMES[:1])
    assert len(asked) > 8
    assert sum(asked) == 2 * 119
    # Other values kept means other fusions: rounding of the last bit, nothing else.
    for one, other in zip(whole.layers, parts.layers, strict=True):
        assert one.name == other.name
        assert one.relative_rms == pytest.approx(other.relative_rms, rel=0.2)


def test_chunks_fill_up_to_the_limit_in_order() -> None:
    sizes = [4, 4, 9, 3, None, 2, 2]
    layers = [Layer(str(index), "Conv", size) for index, size in enumerate(sizes)]
    found = [[layer.name for layer in chunk] for chunk in chunks(layers, 8)]
    assert found == [["0", "1"], ["2"], ["3"], ["4"], ["5", "6"]]
    assert list(chunks([], 8)) == []


def test_stdout_stays_free(capsys: pytest.CaptureFixture[str]) -> None:
    compare_layers(side(exported()), side(changed(swap_colours)), FRAMES[:1])
    assert capsys.readouterr().out == ""


def row(rms: float, name: str = "x") -> LayerDifference:
    return LayerDifference(name, "Conv", 1.0, 4.0, rms)


def test_what_is_no_number_diverges_and_is_null_in_json() -> None:
    report = LayerReport((row(0.0), row(math.nan, "bad"), row(math.inf)), 0.25, 1, ())
    assert report.first is not None
    assert report.first.name == "bad"
    data = json.loads(json.dumps(report.to_json(), allow_nan=False))
    assert data["first_diverging"] == "bad"
    assert [layer["relative_rms"] for layer in data["layers"]] == [0.0, None, None]
    assert [layer["diverges"] for layer in data["layers"]] == [False, True, True]


def test_figures_of_a_layer_follow_from_each_other() -> None:
    assert row(0.1).snr_db == pytest.approx(20.0)
    assert row(0.0).snr_db == math.inf
    assert row(0.1).relative_max == 0.25
    assert replace(row(0.1), peak=0.5).relative_max == 1.0


def test_not_a_number_inside_an_engine_is_found() -> None:
    def spoil(model: onnx.ModelProto) -> None:
        tensor = next(t for t in model.graph.initializer if t.name == "cell.5.1.conv2.bias")
        values = np.full(tuple(tensor.dims), np.nan, np.float32)
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))

    report = compare_layers(side(exported()), side(changed(spoil)), FRAMES[:1])
    assert report.first is not None
    assert report.first.name == "cell.5.1/2.conv"
    assert math.isnan(report.first.max_abs)


def test_graphs_without_a_common_name_are_refused() -> None:
    def rename(model: onnx.ModelProto) -> None:
        for node in model.graph.node:
            for names in (node.input, node.output):
                names[:] = [f"{n}_x" if n in made and n != "labels" else n for n in names]

    made = {name for node in onnx.load_from_string(exported()).graph.node for name in node.output}
    with pytest.raises(UsageError, match="share no value"):
        compare_layers(side(exported()), side(changed(rename)), FRAMES[:1])


def test_no_frames_are_refused() -> None:
    with pytest.raises(UsageError, match="--frames"):
        compare_layers(side(exported()), side(exported()), [])


@pytest.mark.parametrize("backend", ["torch", "tensorrt"])
def test_engines_that_cannot_be_seen_into_are_refused(backend: str) -> None:
    engine = side(exported()).engine
    engine.backend = backend
    with pytest.raises(UsageError, match="onnxruntime"):
        Side.of(EngineRequest(engine=backend), engine)
