"""`fasterseg build` and plans in `info` and `infer`, over a fake of TensorRT."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest

from fasterseg.deploy.export import read_exported
from fasterseg.graph.emit import EmitOptions
from fasterseg.runtime import driver, plan_store, plugins, trt_surface
from fasterseg.runtime.base import ParityVerdict
from fasterseg.runtime.plan_files import layers_path, read_facts, sidecar_path, write_plan
from fasterseg.runtime.plugins import PluginLibrary
from fasterseg.runtime.trt_target import Target
from fasterseg.types import Size
from tests.fake_cuda import FakeCudart, FakeDriver, fake_port
from tests.fake_trt import FakeBuilderApi
from tests.plans import GPU, plan
from tests.shared import ROOT
from tests.unit.cli.conftest import Run
from tests.unit.graph.test_foreign import network as convolution
from tests.unit.runtime.test_trt_network import floats, network

pytestmark = pytest.mark.onnx

CAMVID = "fasterseg-camvid"
SIZE = ("--size", "64x96")


class FakeBackend:
    """Opens anything; what it opens agrees with the reference as far as `agreement` says."""

    agreement = 1.0

    def open(self, path: Path) -> FakeBackend:
        return self

    def close(self) -> None:
        return

    def inspect(self) -> str:
        return json.dumps({"Layers": ["a", "b"], "Bindings": ["frames", "labels"]})

    def judge(self, *arguments: Any) -> ParityVerdict:
        return ParityVerdict("onnxruntime/cpu", self.agreement, 0.999, self.agreement >= 0.999)


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeBackend]:
    """A machine with a GPU and TensorRT 10."""
    fake = FakeBackend()
    with fake_port() as (_, cuda):
        api = FakeBuilderApi(cuda, network(*floats("HALF")))
        monkeypatch.setattr(trt_surface, "import_module", lambda name: api)
        monkeypatch.setattr(driver, "_load", FakeDriver)
        found = {"parity": fake.judge, "tensorrt": fake}
        monkeypatch.setattr(plan_store, "resolve", lambda registry, kind, name: found[name])
        monkeypatch.setattr(plugins, "_FOLDERS", ())
        monkeypatch.delenv(plugins.VARIABLE, raising=False)
        yield fake


def test_an_engine_goes_to_the_cache_and_its_path_to_stdout(run: Run, backend: FakeBackend) -> None:
    outcome = run("build", CAMVID, *SIZE)
    assert outcome.code == 0, outcome.stderr
    path = Path(outcome.stdout.strip())
    assert path.is_file()
    assert "/.cache/engines/nvidia-h200-sm90-tensorrt10.16.1.11/" in str(path)
    assert read_facts(path).spec.precision == "fp16"
    again = run("build", CAMVID, *SIZE)
    assert (again.stdout, "built engine" in again.stderr) == (outcome.stdout, False)


def test_an_engine_of_ones_own_is_not_replaced_unasked(
    run: Run, backend: FakeBackend, tmp_path: Path
) -> None:
    file = tmp_path / "x.engine"
    assert run("build", CAMVID, *SIZE, "-o", file).stdout.strip() == str(file)
    refused = run("build", CAMVID, *SIZE, "-o", file)
    assert refused.code == 2
    assert "--overwrite" in refused.stderr
    assert run("build", CAMVID, *SIZE, "-o", file, "--overwrite").code == 0


def test_a_recipe_makes_an_engine_per_size(run: Run, backend: FakeBackend, tmp_path: Path) -> None:
    outcome = run("build", ROOT / "engines/recipes/fasterseg-camvid-fp16.toml")
    assert outcome.code == 0, outcome.stderr
    assert outcome.stdout.splitlines() == [
        f"engines/build/fasterseg-camvid_{size}_b1_fp16_sm90_trt10.16.1.engine"
        for size in ("360x480", "360x640")
    ]


def test_an_engine_that_disagrees_ends_with_5_and_keeps_its_verdict(
    run: Run, backend: FakeBackend, tmp_path: Path
) -> None:
    backend.agreement = 0.9
    outcome = run("build", CAMVID, *SIZE, "-o", tmp_path / "x.engine")
    assert outcome.code == 5
    assert "90.0000% of the labels of onnxruntime/cpu" in outcome.stderr
    parity = read_facts(tmp_path / "x.engine").spec.parity
    assert parity is not None
    assert not parity.passed


def test_options_are_kept_in_the_description(
    run: Run, backend: FakeBackend, tmp_path: Path
) -> None:
    outcome = run(
        "build", CAMVID, "--size", "128x192", "--min-size", "64x96", "--max-size", "256x384",
        "--max-batch", "4", "--workspace", "64", "--max-aux-streams", "0", "-o",
        tmp_path / "x.plan", "--version-compatible", "--hardware", "ampere-plus",
    )  # fmt: skip
    assert outcome.code == 0, outcome.stderr
    facts = read_facts(tmp_path / "x.plan")
    assert facts.options.dynamic == ("64x96", "128x192", "256x384")
    assert (facts.options.workspace_mib, facts.options.max_aux_streams) == (64, 0)
    assert (facts.options.version_compatible, facts.options.hardware) == (True, "ampere-plus")
    assert facts.spec.size is None
    assert "parity: null" in outcome.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--engine", "onnxruntime"), 2, "unknown engine to build 'onnxruntime'"),
        (("--precision", "fp8"), 2, "auto, fp32, fp16, int8"),
        (("--plugins", "on"), 2, "auto, off"),
        (("--stages", "network"), 2, "labels, logits8"),
        (("--hardware", "all"), 2, "ampere-plus"),
        (("-o", "x.onnx"), 2, "does not end in .engine or .plan"),
        (("--target", "sm_89"), 4, "--engine tensorrt-rtx"),
        (("--size", "64x96", "--min-size", "128x192"), 2, "not between"),
        (("--precision", "int8", "--ranges", "no.json", *SIZE), 4, "no.json"),
    ],
)
def test_wrong_wishes_are_refused(
    run: Run, backend: FakeBackend, arguments: tuple[str, ...], code: int, message: str
) -> None:
    outcome = run("build", CAMVID, *arguments)
    assert outcome.code == code, outcome.stderr
    assert message in outcome.stderr


def test_without_the_package_the_line_that_installs_it_is_named(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(name: str) -> Any:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(trt_surface, "import_module", absent)
    outcome = run("build", CAMVID)
    assert outcome.code == 4
    assert "pip install 'fasterseg[tensorrt]'" in outcome.stderr


def test_without_a_gpu_tensorrt_builds_nothing(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    api = FakeBuilderApi(FakeCudart(), None)
    monkeypatch.setattr(trt_surface, "import_module", lambda name: api)
    monkeypatch.setattr(driver, "_load", lambda: FakeDriver(count=0))
    outcome = run("build", CAMVID)
    assert outcome.code == 4
    assert "needs an NVIDIA GPU" in outcome.stderr


def test_info_reads_a_plan_and_what_the_inspector_said(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "x.engine"
    write_plan(file, plan())
    assert "parity             not run" in run("info", file).stdout
    layers_path(file).write_text(json.dumps({"Layers": ["a"], "I/O Tensors": ["frames"]}))
    facts = json.loads(run("info", file, "--json").stdout)
    assert facts["parity"] is None
    assert (facts["gpu"], facts["size"], facts["fused layers"]) == ("NVIDIA H200", "64x96", 1)
    layers_path(file).write_text("{")
    assert run("info", file).code == 4


def test_infer_with_a_plan_names_what_is_missing(run: Run, tmp_path: Path) -> None:
    from fasterseg.streets import images

    cv2 = pytest.importorskip("cv2")
    cv2.imwrite(str(tmp_path / "a.png"), next(images(0, 1))[0])
    assert run("infer", "a.png", "out.png", "--engine", "x.engine").code == 4
    write_plan(tmp_path / "x.engine", plan())
    sidecar_path(tmp_path / "x.engine").unlink()
    outcome = run("infer", "a.png", "out.png", "--engine", "x.engine")
    assert outcome.code == 4
    assert "no description beside it" in outcome.stderr
    outcome = run("infer", "a.png", "out.png", "--no-build", *SIZE)
    assert outcome.code == 4
    assert "--no-build" in outcome.stderr


@pytest.fixture
def wrapped(run: Run, tmp_path: Path) -> Path:
    """A foreign network of half precision behind our boundary."""
    onnx.save(convolution(kind=onnx.TensorProto.FLOAT16, classes=19), tmp_path / "net.onnx")
    told = ("--classes", "cityscapes", "--mean", "0.5", "--std", "0.5")
    made = run("export", "--from", "net.onnx", *told, *SIZE, "-o", "w.onnx")
    assert made.code == 0, made.stderr
    return tmp_path / "w.onnx"


def test_an_engine_file_is_built_as_it_is(
    run: Run, backend: FakeBackend, wrapped: Path, tmp_path: Path
) -> None:
    outcome = run("build", wrapped, "-o", "w.engine")
    assert outcome.code == 0, outcome.stderr
    spec = read_facts(tmp_path / "w.engine").spec
    assert (spec.name, spec.precision, str(spec.size)) == ("net", "fp16", "64x96")
    assert (spec.labels.name, spec.mean, spec.genotype) == ("cityscapes", (0.5, 0.5, 0.5), None)
    assert spec.parity is not None
    assert spec.parity.passed
    cached = Path(run("build", wrapped).stdout.strip())
    assert cached.name.startswith("net_64x96_b1_fp16_sm90_trt10.16.1")


def test_an_engine_file_wrapped_in_another_way_is_another_engine(
    run: Run, backend: FakeBackend, wrapped: Path, tmp_path: Path
) -> None:
    first = run("build", wrapped).stdout
    told = ("--classes", "cityscapes", "--mean", "0.5", "--std", "0.5", "--inline", "--overwrite")
    assert run("export", "--from", "net.onnx", *told, *SIZE, "-o", "w.onnx").code == 0
    assert run("build", wrapped).stdout != first


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--size", "128x192"), "--size 128x192: w.onnx is fixed to 64x96"),
        (("--precision", "fp32"), "--precision fp32: w.onnx is fixed to fp16"),
        (("--batch", "2"), "--batch 2: w.onnx is fixed to 1"),
        (("--stages", "logits8"), "--stages logits8: w.onnx is fixed to labels"),
        (("--ranges", "x.json"), "has its numbers inside"),
        (("--max-size", "128x192"), "fixed to 64x96"),
    ],
)
def test_an_engine_file_is_not_built_as_something_else(
    run: Run, backend: FakeBackend, wrapped: Path, arguments: tuple[str, ...], message: str
) -> None:
    outcome = run("build", "w.onnx", *arguments)
    assert outcome.code == 2, outcome.stderr
    assert message in outcome.stderr


def test_files_that_no_plan_can_be_built_from_say_so(
    run: Run, backend: FakeBackend, wrapped: Path
) -> None:
    run("export", CAMVID, *SIZE, "--stages", "network", "-o", "bare.onnx")
    run("export", CAMVID, *SIZE, "--dynamic", "-o", "free.onnx")
    for name, message in (
        ("bare.onnx", "without --stages network"),
        ("free.onnx", "--min-size HxW"),
        ("net.onnx", "carries no engine description"),
        ("gone.onnx", "does not exist"),
    ):
        outcome = run("build", name)
        assert (outcome.code, message in outcome.stderr) == (4, True), outcome.stderr


def test_nodes_stay_only_where_a_plugin_takes_them(wrapped: Path) -> None:
    exported = read_exported(wrapped)
    bare = Target("tensorrt", "10.16.1.11", GPU, (GPU.arch,))
    library = PluginLibrary(Path("x.so"), "0" * 64, 1)
    for target, left in ((bare, []), (replace(bare, plugins=library), ["UpsampleArgmax"])):
        job = plan_store.Job(exported, Size(64, 96), EmitOptions(precision="fp16"), target)
        nodes = onnx.load_from_string(plan_store.onnx_for(job)).graph.node
        assert [node.op_type for node in nodes if node.domain == "fasterseg"] == left
