"""The README of a served model: its client runs, its command names what the server needs."""

from __future__ import annotations

import re
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import cv2
import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray

from fasterseg.deploy.export import export_onnx
from fasterseg.deploy.triton import (
    Servable,
    Serving,
    servable_file,
    servable_model,
    write_repository,
)
from fasterseg.deploy.triton_readme import RELEASE, readme_text
from fasterseg.graph.emit import EmitOptions
from fasterseg.runtime.model import resolve_model
from fasterseg.runtime.plan_files import BuildOptions
from fasterseg.types import Size
from tests.plans import plan
from tests.unit.deploy.test_triton import SIZE, plan_file
from tests.unit.deploy.test_triton_config import job, plan_job

pytestmark = pytest.mark.onnx


class FakeServer:
    """Stands in for `tritonclient.http`: its server is ONNX Runtime on the repository's file."""

    repository: ClassVar[Path]

    class InferInput:
        """One tensor of a request."""

        def __init__(self, name: str, shape: list[int], datatype: str) -> None:
            self.name, self.shape, self.datatype = name, shape, datatype

        def set_data_from_numpy(self, data: NDArray[Any]) -> None:
            assert (list(data.shape), str(data.dtype)) == (self.shape, self.datatype.lower())
            self.data = data

    class InferenceServerClient:
        """Answers with what the model gives."""

        def __init__(self, url: str) -> None:
            assert url == "localhost:8000"

        def infer(self, model_name: str, inputs: list[FakeServer.InferInput]) -> Any:
            file = FakeServer.repository / model_name / "1" / "model.onnx"
            session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
            fed = {tensor.name: tensor.data for tensor in inputs}
            answer = ModuleType("answer")
            answer.as_numpy = lambda name: session.run([name], fed)[0]  # type: ignore[attr-defined]
            return answer


def fixed(folder: Path) -> Servable:
    model = resolve_model("fasterseg-camvid")
    return servable_file(export_onnx(model, SIZE, EmitOptions(batch=2), folder / "x.onnx"))


@pytest.mark.parametrize("kind", ["free batch", "fixed batch", "free sizes"])
def test_client_sends_a_frame_and_gets_its_labels(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = replace(resolve_model("fasterseg-camvid"), train_size=SIZE)
    made = {
        "free batch": lambda: servable_model(model, SIZE),
        "free sizes": lambda: servable_model(model, SIZE, dynamic=True),
        "fixed batch": lambda: fixed(tmp_path),
    }[kind]()
    folder = write_repository(made, tmp_path / "models")
    [program] = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)

    frame = np.random.default_rng(2).integers(0, 256, (*SIZE, 3), np.uint8)
    monkeypatch.chdir(tmp_path)
    cv2.imwrite("street.png", frame)
    monkeypatch.setattr(FakeServer, "repository", tmp_path / "models", raising=False)
    client = ModuleType("tritonclient.http")
    vars(client).update(vars(FakeServer))
    parent = ModuleType("tritonclient")
    parent.http = client  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tritonclient", parent)
    monkeypatch.setitem(sys.modules, "tritonclient.http", client)
    exec(compile(program.replace("street.jpg", "street.png"), "README.md", "exec"), {})

    session = onnxruntime.InferenceSession(made.content, providers=["CPUExecutionProvider"])
    batch = np.stack([frame] * (made.spec.batch or 1))
    expected = session.run(None, {"frames": batch})[0][0]
    labels = cv2.imread("labels.png", cv2.IMREAD_GRAYSCALE)
    assert labels is not None
    assert np.array_equal(labels, expected)


def command(text: str) -> list[str]:
    """The words of the `docker run` line."""
    [script] = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    return shlex.split(script.replace("\\\n", "").splitlines()[0])


def test_server_is_open_to_this_machine_alone_and_reads_the_repository() -> None:
    words = command(readme_text(job()))
    assert words[:3] == ["docker", "run", "--rm"]
    assert "127.0.0.1:8000:8000" in words
    assert "$PWD:/models:ro" in words
    assert words[-2:] == ["tritonserver", "--model-repository=/models"]
    assert f"nvcr.io/nvidia/tritonserver:{RELEASE}" in words


@pytest.mark.parametrize(("device", "gpus"), [("auto", True), ("cuda", True), ("cpu", False)])
def test_gpus_are_given_to_servers_that_use_them(device: str, gpus: bool) -> None:
    text = readme_text(job(device=device))
    assert ("--gpus" in command(text)) == gpus
    assert ("use_tf32" in text) == gpus


def test_plan_names_its_runtime_gpu_and_plugins() -> None:
    made = plan_job()
    assert made.plan is not None
    library = {"libfasterseg_tensorrt.so": "ab" * 32}
    facts = replace(made.plan, spec=replace(made.plan.spec, plugins=library))
    text = readme_text(replace(made, plan=facts, spec=facts.spec))
    assert "TensorRT 10.16.1.11 for NVIDIA H200" in text
    assert "ab" * 32 in text
    words = command(text)
    assert "--backend-config=tensorrt,plugins=/plugins/libfasterseg_tensorrt.so" in words
    assert "/path/to/libfasterseg_tensorrt.so:/plugins/libfasterseg_tensorrt.so:ro" in words


def test_version_compatible_plan_brings_its_plugins_along() -> None:
    made = plan_job()
    assert made.plan is not None
    library = {"libfasterseg_tensorrt.so": "ab" * 32}
    facts = replace(
        made.plan,
        spec=replace(made.plan.spec, plugins=library),
        options=BuildOptions(version_compatible=True),
    )
    words = command(readme_text(replace(made, plan=facts, spec=facts.spec)))
    assert "--backend-config=tensorrt,version-compatible=true" in words
    assert not [word for word in words if "plugins" in word]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({}, "Up to 4 frames"),
        ({"queue_delay_us": 2500}, "waits 2.5 ms"),
        ({"most": 1}, "Each call holds one frame"),
        ({"batch": 1}, "exactly 1 frame:"),
        ({"batch": 2}, "exactly 2 frames:"),
        ({"spec": replace(job().spec, trained=False)}, "untrained"),
        ({"spec": replace(job().spec, precision="int8")}, "int8 is written for CPUs"),
        ({"spec": replace(job().spec, size=None)}, "any size from 64x64"),
    ],
)
def test_notes_say_what_holds_for_this_engine(changes: dict[str, Any], told: str) -> None:
    assert told in readme_text(job(**changes))
    unlike = [n for n in ("untrained", "int8 is", "any size") if n not in told]
    assert not [note for note in unlike if note in readme_text(job(**changes))]


def test_sizes_of_a_plan_are_told(tmp_path: Path) -> None:
    assert "64x64 to 128x192" in readme_text(plan_job(dynamic=True))
    folder = write_repository(
        servable_file(plan_file(tmp_path, plan())), tmp_path / "models", Serving()
    )
    assert f"1, {SIZE.height}, {SIZE.width}, 3" in (folder / "README.md").read_text()


def test_class_names_do_not_reach_the_readme() -> None:
    names = ("<script>alert(1)</script>", *job().spec.labels.classes[1:])
    spec = replace(job().spec, labels=replace(job().spec.labels, classes=names))
    assert "script>" not in readme_text(job(spec=spec))


def test_a_foreign_network_without_a_size_still_has_an_example() -> None:
    spec = replace(job().spec, size=None, train_size=None)
    assert f"[1, {Size(512, 1024).height}, 1024, 3]" in readme_text(job(spec=spec))
