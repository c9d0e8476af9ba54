"""The engine inspector's JSON, as TensorRT 10 and as 11 write it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fasterseg.errors import EngineMismatchError
from fasterseg.runtime.inspector import read_inspector

TEN = {
    "Layers": [
        {"Name": "a", "LayerType": "Convolution",
         "Outputs": [{"Name": "y", "Format/Datatype": "Half"}]},
        {"Name": "b", "LayerType": "Myelin", "Outputs": [{"Name": "z", "Format/Datatype": "Half"}]},
    ],
    "Bindings": ["frames", "labels"],
}  # fmt: skip
ELEVEN = {
    "Layers": [
        {"Name": "a", "LayerType": "Convolution",
         "Outputs": [{"Name": "y", "Format": "NHWC8", "DataType": "Half"}]},
        {"Name": "b", "LayerType": "Myelin",
         "Outputs": [{"Name": "z", "Format": "Linear", "DataType": "Half"}]},
    ],
    "I/O Tensors": [{"Name": "frames"}, {"Name": "labels"}],
}  # fmt: skip


@pytest.mark.parametrize("data", [TEN, ELEVEN])
def test_both_spellings_say_the_same(tmp_path: Path, data: Any) -> None:
    (tmp_path / "x.json").write_text(json.dumps(data))
    found = read_inspector(tmp_path / "x.json")
    assert found.tensors == ("frames", "labels")
    assert found.kinds == {"Convolution": 1, "Myelin": 1}
    assert found.types == {"Half": 2}
    assert found.layers == 2


def test_engines_that_keep_only_names_are_counted(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(json.dumps({"Layers": ["a", "b", "c"], "Bindings": ["x"]}))
    found = read_inspector(tmp_path / "x.json")
    assert (found.layers, found.kinds, found.types) == (3, {"unnamed": 3}, {})


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "[]",
        '{"Layers": 3}',
        '{"Layers": []',
        "\x00",
        pytest.param("[" * 100_000, id="deep"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(EngineMismatchError, match=r"engine inspector.*trtexec --exportLayerInfo"):
        read_inspector(tmp_path / "x.json")
