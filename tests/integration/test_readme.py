"""Every fasterseg command of the README runs, or at least parses where running takes more."""

from __future__ import annotations

import io
import re
import shlex
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from fasterseg.arch.plan import plan
from fasterseg.cli import bench, infer, main, search
from fasterseg.cli.options import exit_code_of
from fasterseg.datasets import dataset
from fasterseg.runtime.model import resolve_model, write_model
from fasterseg.types import Size
from tests.media import write_clip
from tests.parity import street_like
from tests.shared import ROOT

pytestmark = pytest.mark.onnx

PROGRAMS = {
    "fasterseg": main.app,
    "fasterseg-bench": bench.app,
    "fasterseg-infer": infer.app,
    "fasterseg-search": search.app,
}
ONLY_PARSED = {
    "rtsp:": "a camera on the network",
    "camera:": "a camera",
    "udp:": "another machine",
    "tensorrt": "TensorRT and a GPU",
    "--device cuda": "an NVIDIA GPU",
    "gst:": "OpenCV with GStreamer",
    "fasterseg-bench": "minutes of timing, or a data set",
    "fasterseg-search": "hours of training, or a data set",
    "<": "a stream of raw frames",
    "doctor": "ten seconds; has tests of its own",
}
SIZE = Size(72, 128)


def blocks() -> list[list[str]]:
    """Commands of ours, per shell block of the README."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    found = [
        [line.partition(" #")[0].strip() for line in block.splitlines()]
        for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    ]
    ours = [[line for line in lines if line.split(" ")[0] in PROGRAMS] for lines in found]
    return [lines for lines in ours if lines]


def make_inputs(folder: Path) -> None:
    """The files that the README's commands name."""
    (folder / "frames").mkdir()
    for index in range(2):
        cv2.imwrite(str(folder / f"frames/{index:06d}.png"), street_like(SIZE, index)[0])
    cv2.imwrite(str(folder / "street.jpg"), street_like(SIZE)[0])
    write_clip(folder / "drive.mp4", 7, SIZE, rate=5)
    settings = 'input = "drive.mp4"\noutput = "front.mp4"\nlegend = true\n'
    (folder / "front.toml").write_text(settings)
    shipped = resolve_model("fasterseg-camvid")
    weights = shipped.load_weights(plan(shipped.genotype, SIZE))
    write_model(folder / "yard-model", shipped, weights)
    (folder / "stdc1.onnx").write_bytes(somebody_elses_network())


def somebody_elses_network() -> bytes:
    """One convolution to the logits of 19 classes at 1/8."""
    weight = np.random.default_rng(0).standard_normal((19, 3, 8, 8)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("Conv", ["image", "weight"], ["logits"], strides=[8, 8])],
        "other",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, 512, 1024])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 19, 64, 128])],
        [numpy_helper.from_array(weight, "weight")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    content: bytes = model.SerializeToString()
    return content


def run(line: str) -> int:
    """Exit code of a command line, or of parsing it where it cannot run here."""
    words = shlex.split(line.partition(" <")[0].partition(" >")[0])
    app, arguments = PROGRAMS[words[0]], words[1:]
    if any(mark in line for mark in ONLY_PARSED):
        arguments.append("--help")  # wrong options and values are refused before the help
    return exit_code_of(app, arguments)


@pytest.mark.parametrize("lines", blocks(), ids=lambda lines: lines[-1][:40])
def test_commands_of_the_readme_run(
    lines: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FASTERSEG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("FASTERSEG_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    make_inputs(tmp_path)
    if any("openvino" in line for line in lines):
        pytest.importorskip("openvino", reason="openvino not installed")
    if any("models import" in line or "torch" in line for line in lines):
        torch = pytest.importorskip("torch", reason="torch not installed")
        from tests.unit.nn.test_weights import made_state

        torch.save(made_state(), tmp_path / "weights1.pt")
    for line in lines:
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), write_through=True))
        assert run(line) == 0, line


def test_the_readme_has_commands() -> None:
    assert sum(len(lines) for lines in blocks()) >= 20


def test_the_data_set_of_the_readme_is_one(tmp_path: Path) -> None:
    """Its TOML is read as it stands, and pairs pictures with the label maps it speaks of."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    (tmp_path / "yard.toml").write_text(block)
    for split in ("train", "val"):
        for folder, value in (("images", None), ("labels", 27)):
            suffix = "jpg" if value is None else "png"
            file = tmp_path / f"yard/{folder}/{split}/0.{suffix}"
            file.parent.mkdir(parents=True)
            picture = np.zeros((64, 64, 3), np.uint8) if value is None else np.full((64, 64), value)
            cv2.imwrite(str(file), picture)
    spec = dataset(str(tmp_path / "yard.toml"))
    (pair,) = spec.pairs(spec.folder(None), "train")
    assert (spec.read_label(pair) == spec.labels.classes.index("vehicle")).all()
