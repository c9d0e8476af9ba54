"""The spec inside an engine file survives the trip, and bad ones are refused with a remedy."""

from __future__ import annotations

import json

import pytest

from fasterseg.errors import EngineMismatchError
from fasterseg.graph.emit import EmitOptions
from fasterseg.runtime.base import EngineSpec, ParityVerdict
from fasterseg.runtime.model import resolve_model
from fasterseg.runtime.store import describe
from fasterseg.types import Size


def spec(dynamic: bool = False) -> EngineSpec:
    options = EmitOptions(precision="fp16", batch=2, dynamic=dynamic)
    return describe(resolve_model("fasterseg-camvid"), Size(360, 640), options)


@pytest.mark.parametrize("dynamic", [False, True])
def test_a_spec_survives_json(dynamic: bool) -> None:
    original = spec(dynamic).with_parity(ParityVerdict("torch fp32", 0.99995, 0.9999, True))
    assert EngineSpec.from_json(original.to_json(), "x.onnx") == original


def test_a_spec_of_int8_survives_json() -> None:
    original = describe(
        resolve_model("fasterseg-camvid"), Size(64, 64), EmitOptions(precision="int8")
    )
    assert original.profile == "cpu"
    assert EngineSpec.from_json(original.to_json(), "x.onnx") == original


def test_a_spec_written_before_int8_is_read() -> None:
    data = json.loads(spec().to_json())
    del data["profile"], data["ranges_sha256"]
    assert EngineSpec.from_json(json.dumps(data), "x.onnx") == spec()


def test_a_newer_schema_asks_for_an_upgrade() -> None:
    data = json.loads(spec().to_json())
    data["schema"] = 99
    with pytest.raises(EngineMismatchError, match="Upgrade"):
        EngineSpec.from_json(json.dumps(data), "x.onnx")


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "[]", "3", "{}", '{"schema": 1}', '{"schema": "a"}', '{"labels": 3}',
        '{"schema": Infinity}', pytest.param("[" * 100_000, id="deep"),
    ],
)  # fmt: skip
def test_text_that_is_no_spec_is_refused(text: str) -> None:
    with pytest.raises(EngineMismatchError, match=r"x\.onnx.*fasterseg export"):
        EngineSpec.from_json(text, "x.onnx")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("size", "0x0"),
        ("precision", "fp7"),
        ("profile", "gpu"),
        ("batch", "one"),
        ("labels", {}),
        ("genotype", {}),
    ],
)
def test_a_spec_with_a_wrong_value_is_refused(key: str, value: object) -> None:
    data = json.loads(spec().to_json())
    data[key] = value
    with pytest.raises(EngineMismatchError):
        EngineSpec.from_json(json.dumps(data), "x.onnx")
