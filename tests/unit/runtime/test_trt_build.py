"""What the builder asks of TensorRT, over a fake of it; the real builder is tested with RTX."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fasterseg import interrupts
from fasterseg.errors import (
    BuildError,
    EngineError,
    EngineMismatchError,
    MissingExtraError,
    UnsupportedError,
)
from fasterseg.graph.emit import EmitOptions
from fasterseg.runtime import plugins, trt_build, trt_surface, trt_target
from fasterseg.runtime.driver import Gpu
from fasterseg.runtime.model import resolve_model
from fasterseg.runtime.plan_files import BuildOptions
from fasterseg.runtime.store import describe
from fasterseg.runtime.trt_build import Order, build
from fasterseg.runtime.trt_log import Messages, new_monitor
from fasterseg.runtime.trt_surface import load_api
from fasterseg.runtime.trt_target import Target, find_target
from tests.fake_cuda import FakeCudart
from tests.fake_trt import FakeBuilderApi
from tests.plans import GPU, SIZE
from tests.unit.runtime.test_trt_network import floats, network

Notes = list[str]


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> FakeBuilderApi:
    made = FakeBuilderApi(FakeCudart(), network(*floats("HALF")))
    monkeypatch.setattr(trt_surface, "import_module", lambda name: made)
    monkeypatch.setattr(plugins, "_FOLDERS", ())
    return made


def order(timings: Path | None = None, *, dynamic: bool = False, **options: Any) -> Order:
    spec = describe(
        resolve_model("fasterseg-camvid"), SIZE, EmitOptions(precision="fp16", dynamic=dynamic)
    )
    target = Target("tensorrt", "10.16.1.11", GPU, (GPU.arch,))
    return Order(b"onnx", spec, target, BuildOptions(**options), timings)


def test_a_plan_is_described_by_what_was_built(api: FakeBuilderApi) -> None:
    facts = build(order(), print).facts
    assert (facts.version, facts.targets, facts.cuda) == ("10.16.1.11", ("sm_90",), "13.0")
    assert (facts.spec.runtime, facts.spec.gpu) == ("tensorrt 10.16.1.11", "NVIDIA H200")
    assert facts.spec.parity is None
    assert facts.bytes == 4
    assert facts.layers["CONVOLUTION"] == 1


def test_networks_are_strongly_typed_and_fp32_means_fp32(api: FakeBuilderApi) -> None:
    build(order(), print)
    assert api.creation_flags == 1 << 1
    assert api.config.flags == set()


def test_options_reach_the_builder(api: FakeBuilderApi) -> None:
    build(
        order(workspace_mib=64, max_aux_streams=0, optimization_level=5, version_compatible=True,
              hardware="ampere-plus"),
        print,
    )  # fmt: skip
    config: Any = api.config
    assert config.pools == {"WORKSPACE": 64 << 20}
    assert (config.max_aux_streams, config.builder_optimization_level) == (0, 5)
    assert config.flags == {"VERSION_COMPATIBLE"}
    assert config.hardware_compatibility_level.name == "AMPERE_PLUS"


def test_free_sizes_become_a_profile(api: FakeBuilderApi) -> None:
    sizes = ("64x96", "128x192", "256x384")
    build(replace(order(dynamic=True), options=BuildOptions(dynamic=sizes, max_batch=4)), print)
    assert api.config.profiles == [("frames", (1, 64, 96, 3), (1, 128, 192, 3), (4, 256, 384, 3))]


def test_a_graph_of_another_precision_is_refused_before_the_build(api: FakeBuilderApi) -> None:
    api.network = network(*floats("FLOAT"))
    with pytest.raises(EngineMismatchError, match="fp16 was asked for"):
        build(order(), print)
    assert api.builds == 0


def test_parser_errors_are_gathered_in_one_message(api: FakeBuilderApi) -> None:
    def error(name: str, operator: str) -> Any:
        return SimpleNamespace(
            node=lambda: 3, node_name=lambda: name, node_operator=lambda: operator,
            desc=lambda: "Plugin not\nfound",
        )  # fmt: skip

    api.parser_errors = [error(f"n{index}", "Blargh") for index in range(5)]
    with pytest.raises(UnsupportedError) as caught:
        build(order(), print)
    assert "(operators Blargh): n0: Plugin not found; n1" in str(caught.value)
    assert "and 2 more" in str(caught.value)
    assert caught.value.exit_code == 4


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ("Requested amount of GPU memory could not be allocated: OutOfMemory", "memory ran out"),
        ("no tactics to implement the operation within workspace limit", "memory ran out"),
        ("Could not find any implementation for node x", "could not build .*--plugins off"),
    ],
)
def test_a_failed_build_says_why(api: FakeBuilderApi, said: str, message: str) -> None:
    api.built, api.says = None, [("ERROR", said), ("WARNING", "later and unimportant")]
    with pytest.raises(BuildError, match=rf"{message}.*{said[-20:]}") as caught:
        build(order(), print)
    assert caught.value.exit_code == 4


def test_a_failed_build_without_a_reason_says_so(api: FakeBuilderApi) -> None:
    api.built = None
    with pytest.raises(BuildError, match="gave no reason"):
        build(order(), print)


def test_layer_times_are_kept_and_joined(api: FakeBuilderApi, tmp_path: Path) -> None:
    file = tmp_path / "x.timing"
    build(order(file), print)
    assert file.read_bytes() == b"+measured"
    build(order(file), print)
    assert file.read_bytes() == b"+measured+measured+measured"


def test_layer_times_of_another_gpu_are_begun_anew(api: FakeBuilderApi, tmp_path: Path) -> None:
    notes: Notes = []
    api.config.rejects_timings = True
    (tmp_path / "x.timing").write_bytes(b"foreign")
    build(order(tmp_path / "x.timing"), notes.append)
    assert "begun anew" in notes[0]


def test_layer_times_that_cannot_be_kept_are_no_failure(
    api: FakeBuilderApi, tmp_path: Path
) -> None:
    notes: Notes = []
    (tmp_path / "file").touch()
    assert build(order(tmp_path / "file" / "x.timing"), notes.append).data == b"plan"
    assert "not kept" in notes[0]


def test_progress_is_told_now_and_then_and_ctrl_c_ends_a_build(
    api: FakeBuilderApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes: Notes = []
    seconds = iter([0.0, 1.0, 6.0, 7.0, 8.0])
    monitor = new_monitor(api, notes.append, every_s=5, clock=lambda: next(seconds))  # type: ignore[arg-type]
    monitor.phase_start("Timing", None, 40)
    assert [monitor.step_complete("Timing", step) for step in range(3)] == [True] * 3
    assert notes == ["building: 6 s, Timing 2 of 40"]
    monkeypatch.setattr(interrupts, "came", lambda: True)
    assert monitor.step_complete("Timing", 3) is False


def test_a_build_that_was_interrupted_is_no_failure(
    api: FakeBuilderApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    api.built = None
    monkeypatch.setattr(trt_build, "came", lambda: True)
    with pytest.raises(KeyboardInterrupt):
        build(order(), print)


def test_messages_keep_errors_and_no_more_than_a_few() -> None:
    messages = Messages()
    for index in range(20):
        messages.add("ERROR", f"error\n  {index}")
        messages.add("WARNING", "warning")
    assert messages.last == "error 19"
    assert len(messages.all) == 8


@pytest.mark.parametrize(
    ("capability", "precision", "fits"),
    [
        ((9, 0), "bf16", True),
        ((7, 5), "bf16", False),
        ((7, 0), "fp16", False),
        ((8, 7), "int8", True),
    ],
)
def test_a_precision_the_gpu_lacks_is_refused(
    api: FakeBuilderApi, capability: tuple[int, int], precision: Any, fits: bool
) -> None:
    gpu = Gpu("some GPU", capability, "13.0")
    if fits:
        find_target("tensorrt", precision, BuildOptions(), gpu, print)
        return
    with pytest.raises(UnsupportedError, match=rf"precision {precision} needs .* \(some GPU\)"):
        find_target("tensorrt", precision, BuildOptions(), gpu, print)


def rtx(api: FakeBuilderApi) -> None:
    api.__dict__["ComputeCapability"] = SimpleNamespace(SM75=0, SM89=1, SM120=2, CURRENT=3)


def test_rtx_builds_for_named_gpus_and_refuses_unknown_ones(api: FakeBuilderApi) -> None:
    rtx(api)
    options = BuildOptions(targets=("sm_89", "sm_120"))
    assert find_target("tensorrt-rtx", "fp16", options, None, print).archs == ("sm_89", "sm_120")
    with pytest.raises(UnsupportedError, match=r"sm_90 \(this machine's GPU\); it knows sm_75"):
        find_target("tensorrt-rtx", "fp16", BuildOptions(), GPU, print)
    with pytest.raises(UnsupportedError, match="--target"):
        find_target("tensorrt", "fp16", options, GPU, print)


@pytest.mark.parametrize("options", [{"version_compatible": True}, {"hardware": "ampere-plus"}])
def test_rtx_refuses_what_it_does_not_have(api: FakeBuilderApi, options: dict[str, Any]) -> None:
    rtx(api)
    chosen = BuildOptions(targets=("sm_89",), **options)
    with pytest.raises(UnsupportedError, match=r"neither --version-compatible nor --hardware"):
        find_target("tensorrt-rtx", "fp16", chosen, None, print)


def test_plugins_that_are_absent_are_left_out_and_broken_ones_named(
    api: FakeBuilderApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes: Notes = []
    assert find_target("tensorrt", "fp16", BuildOptions(), GPU, notes.append).plugins is None
    assert not notes

    def broken() -> Any:
        raise EngineError("no ELF")

    monkeypatch.setattr(trt_target, "open_plugins", broken)
    assert find_target("tensorrt", "fp16", BuildOptions(), GPU, notes.append).plugins is None
    assert notes == ["plugins are left out: no ELF"]
    off = BuildOptions(plugins="off")
    assert find_target("tensorrt", "fp16", off, GPU, notes.append).plugins is None
    assert len(notes) == 1


@pytest.mark.parametrize(
    ("failure", "error", "message"),
    [
        (ModuleNotFoundError("no"), MissingExtraError, r"pip install 'fasterseg\[tensorrt\]'"),
        (
            ImportError("libnvinfer.so.10: cannot open"),
            EngineError,
            "libnvinfer.*--force-reinstall",
        ),
        (None, EngineError, "10.0.1 is installed, 10.13 or newer"),
    ],
)
def test_a_tensorrt_that_cannot_be_used_names_its_cure(
    monkeypatch: pytest.MonkeyPatch, failure: Exception | None, error: Any, message: str
) -> None:
    def load(name: str) -> Any:
        if failure is not None:
            raise failure
        return SimpleNamespace(__version__="10.0.1")

    monkeypatch.setattr(trt_surface, "import_module", load)
    with pytest.raises(error, match=message):
        load_api("tensorrt")
