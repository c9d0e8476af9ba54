"""The real TensorRT-RTX parser and builder, on a machine without a GPU, take our real graphs.

This is evidence for the graphs and for our builder code; RTX is another product than TensorRT, and
nothing is executed. What is built lives in `rtx_evidence.py`, run in a process of its own.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]

pytestmark = [
    pytest.mark.onnx,
    pytest.mark.skipif(
        importlib.util.find_spec("tensorrt_rtx") is None,
        reason="tensorrt_rtx not installed: pip install tensorrt-rtx-cu13 (x86-64 Linux)",
    ),
]


@cache
def evidence(what: str) -> Any:
    command = [sys.executable, "-m", "tests.integration.rtx_evidence", what]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def built(name: str) -> dict[str, Any]:
    facts: dict[str, Any] = evidence("networks")[name]
    return facts


CONVOLUTIONS = {"fasterseg-student": 45, "fasterseg-teacher": 67}
RESIZES = {"fasterseg-student": 26, "fasterseg-teacher": 51}


@pytest.mark.parametrize("model", CONVOLUTIONS)
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_student_and_teacher_build_at_1024x2048_in_their_own_types(
    model: str, precision: str
) -> None:
    # That convolutions compute in the precision is asserted by the builder itself, layer by layer.
    facts = built(f"{model} {precision}")
    assert facts["bytes"] > 1_000_000
    assert facts["inputs"] == {"frames": "UINT8 (1, 1024, 2048, 3)"}
    assert facts["outputs"] == {"labels": "UINT8 (1, 1024, 2048)"}
    assert facts["layers"]["CONVOLUTION"] == CONVOLUTIONS[model]
    assert facts["layers"]["RESIZE"] == RESIZES[model]
    assert facts["parity"] is None
    assert len(facts["targets"]) == 5


@pytest.mark.parametrize("model", CONVOLUTIONS)
def test_quantisation_survives_the_parser(model: str) -> None:
    layers = built(f"{model} int8")["layers"]
    # One for each map, and one for the weights of each convolution but the last.
    assert layers["DEQUANTIZE"] == layers["QUANTIZE"] + CONVOLUTIONS[model] - 1
    assert layers["QUANTIZE"] > CONVOLUTIONS[model]


@pytest.mark.parametrize("model", CONVOLUTIONS)
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_float_networks_have_no_integers_inside(model: str, precision: str) -> None:
    assert not {"QUANTIZE", "DEQUANTIZE"} & set(built(f"{model} {precision}")["layers"])


def test_free_sizes_build_with_a_profile() -> None:
    assert built("free sizes")["inputs"] == {"frames": "UINT8 (-1, -1, -1, 3)"}


def test_without_plugins_our_functions_become_their_bodies() -> None:
    layers = built("functions")["layers"]
    assert "PLUGIN_V3" not in layers
    assert (layers["CONVOLUTION"], layers["RESIZE"], layers["TOPK"]) == (45, 26, 1)


def test_the_core_graph_ends_in_float_logits() -> None:
    facts = built("logits")
    assert facts["outputs"] == {"logits8": "FLOAT (1, 19, 16, 32)"}
    assert "TOPK" not in facts["layers"]


@pytest.mark.parametrize(
    "name", ["stdc", "ddrnet", "scale 1", "scale 4", "scale 8", "half", "ids", "opset 11"]
)
def test_wrapped_networks_build_as_they_are(name: str) -> None:
    facts = evidence("foreign")[name]
    assert facts["inputs"] == {"frames": "UINT8 (1, 128, 256, 3)"}
    assert facts["outputs"] == {"labels": "UINT8 (1, 128, 256)"}
    assert facts["layers"]["CONVOLUTION"] >= 1
    assert "PLUGIN_V3" not in facts["layers"]


@pytest.mark.parametrize(
    ("attempt", "error", "message"),
    [
        ("unknown operator", "UnsupportedError", "operators Rectify"),
        ("no onnx", "UnsupportedError", "Failed to parse the ONNX model"),
        ("uint8 output", "UnsupportedError", "UINT8"),
        ("fp32 for fp16", "EngineMismatchError", "has FLOAT where fp16 has HALF"),
        ("fp16 for fp32", "EngineMismatchError", "has HALF where fp32 has FLOAT"),
        ("fp16 for int8", "EngineMismatchError", "unquantised activations"),
        ("int8 for fp16", "EngineMismatchError", "has FLOAT where fp16 has HALF"),
        ("cpu profile", "UnsupportedError", "--profile tensorrt"),
        ("no memory", "BuildError", "memory ran out. Choose a smaller --size"),
        ("unknown gpu", "UnsupportedError", "does not build for sm_90; it knows sm_75"),
    ],
)
def test_what_cannot_be_built_is_refused_with_a_cure(
    attempt: str, error: str, message: str
) -> None:
    kind, text = evidence("refusals")[attempt]
    assert kind == error, text
    assert message in text
