"""Plans in the cache: built once, compared once, found again; over a fake of TensorRT."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fasterseg import cache
from fasterseg.errors import (
    DeviceUnavailableError,
    EngineMismatchError,
    OutputError,
    ParityError,
    UsageError,
)
from fasterseg.graph.emit import EmitOptions
from fasterseg.runtime import driver, plan_store, plugins, trt_surface
from fasterseg.runtime.base import ParityVerdict
from fasterseg.runtime.driver import Gpu
from fasterseg.runtime.model import resolve_model
from fasterseg.runtime.plan_files import (
    BuildOptions,
    Plan,
    layers_path,
    read_facts,
    sidecar_path,
    write_plan,
)
from fasterseg.runtime.plan_store import (
    Job,
    compare_plan,
    find_or_build_plan,
    plan_key,
    plan_name,
    plan_path,
    write_engine,
)
from fasterseg.runtime.plugins import PluginLibrary
from fasterseg.runtime.select import EngineRequest, open_engine
from fasterseg.runtime.trt_target import Target
from fasterseg.types import Size
from tests.fake_cuda import FakeCudart, FakeDriver
from tests.fake_trt import FakeBuilderApi
from tests.plans import GPU, SIZE, plan
from tests.unit.runtime.test_trt_network import floats, network

pytestmark = pytest.mark.onnx

FP16 = EmitOptions(precision="fp16")
TARGET = Target("tensorrt", "10.16.1.11", GPU, (GPU.arch,))


def job(**changes: Any) -> Job:
    return replace(Job(resolve_model("fasterseg-camvid"), SIZE, FP16, TARGET), **changes)


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> FakeBuilderApi:
    made = FakeBuilderApi(FakeCudart(), network(*floats("HALF")))
    monkeypatch.setattr(trt_surface, "import_module", lambda name: made)
    monkeypatch.setattr(plugins, "_FOLDERS", ())
    return made


@pytest.fixture
def verdict(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Let every comparison end with this agreement."""

    def settle(agreement: float) -> None:
        engine = SimpleNamespace(close=lambda: None, inspect=lambda: '{"Layers": []}')
        judged = ParityVerdict("onnxruntime", agreement, 0.999, agreement >= 0.999)
        found = {
            "parity": lambda *arguments: judged,
            "tensorrt": SimpleNamespace(open=lambda path: engine),
        }
        monkeypatch.setattr(plan_store, "resolve", lambda registry, kind, name: found[name])

    settle(1.0)
    return settle


Verdict = Callable[[float], None]


def test_a_plan_is_built_once_compared_and_kept(api: FakeBuilderApi, verdict: Verdict) -> None:
    notes: list[str] = []
    path = find_or_build_plan(job(), notes.append)
    assert isinstance(path, Path)
    assert find_or_build_plan(job(), notes.append) == path
    assert api.builds == 1
    assert len(notes) == 1
    assert str(path) in notes[0]
    facts = read_facts(path)
    assert facts.spec.parity is not None
    assert facts.spec.parity.passed
    assert layers_path(path).read_text() == '{"Layers": []}'


def test_names_and_folders_are_those_users_were_promised() -> None:
    path = plan_path(job())
    assert path.parent.name == "nvidia-h200-sm90-tensorrt10.16.1.11"
    assert path.name.startswith("fasterseg-camvid_64x96_b1_fp16_sm90_trt10.16.1_")
    many = replace(TARGET, backend="tensorrt-rtx", version="1.7.1.116", archs=("sm_86", "sm_89"))
    assert plan_name(job(target=many)) == "fasterseg-camvid_64x96_b1_fp16_sm2x_trtrtx1.7.1"


def test_the_key_holds_everything_a_plan_depends_on() -> None:
    library = PluginLibrary(Path("lib.so"), "ab" * 32, 1)
    model = resolve_model("fasterseg-camvid")
    keys = {
        plan_key(job()),
        plan_key(job(size=Size(96, 64))),
        plan_key(job(model=resolve_model("fasterseg-student"))),
        plan_key(job(model=replace(model, name="other"))),
        plan_key(job(emit=EmitOptions(precision="fp32"))),
        plan_key(job(emit=EmitOptions(precision="int8", profile="tensorrt"))),
        plan_key(job(emit=EmitOptions("logits8", "fp16"))),
        plan_key(job(emit=EmitOptions(precision="fp16", batch=2))),
        plan_key(job(options=BuildOptions(workspace_mib=64))),
        plan_key(job(target=replace(TARGET, version="10.16.2.1"))),
        plan_key(job(target=replace(TARGET, gpu=Gpu("NVIDIA H100", (9, 0), "13.0")))),
        plan_key(job(target=replace(TARGET, archs=("sm_89",)))),
        plan_key(job(target=replace(TARGET, plugins=library))),
        plan_key(job(target=replace(TARGET, system="linux-aarch64"))),
        plan_key(job(target=replace(TARGET, backend="tensorrt-rtx"))),
    }
    assert len(keys) == 15
    assert plan_key(job()) == plan_key(job())


def test_two_builds_of_one_engine_at_once_become_one(
    api: FakeBuilderApi, verdict: Verdict, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = plan_store.build_plan

    def slow(*arguments: Any) -> Plan:
        time.sleep(0.3)
        return inner(*arguments)

    monkeypatch.setattr(plan_store, "build_plan", slow)
    found: list[Any] = []
    threads = [
        threading.Thread(target=lambda: found.append(find_or_build_plan(job(), lambda line: None)))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [plan_path(job())] * 2
    assert api.builds == 1


def test_a_cache_that_cannot_be_written_costs_only_the_keeping(
    api: FakeBuilderApi, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("FASTERSEG_CACHE", str(tmp_path / "file"))
    notes: list[str] = []
    made = find_or_build_plan(job(), notes.append)
    assert isinstance(made, Plan)
    assert any("not usable" in line and "this run only" in line for line in notes)
    with pytest.raises(OutputError):
        find_or_build_plan(job(), notes.append, must_keep=True)


def test_what_differs_from_the_stored_engine_is_named(
    api: FakeBuilderApi, verdict: Verdict
) -> None:
    find_or_build_plan(job(), lambda line: None)
    notes: list[str] = []
    newer = replace(TARGET, version="11.4.0.106")
    find_or_build_plan(job(target=newer), notes.append)
    assert "the stored one has runtime version 10.16.1.11, this is 11.4.0.106" in notes[0]


def test_without_leave_to_build_the_difference_is_an_error(
    api: FakeBuilderApi, verdict: Verdict
) -> None:
    find_or_build_plan(job(), lambda line: None)
    other = replace(TARGET, gpu=Gpu("NVIDIA L4", (8, 9), "13.0"), archs=("sm_89",))
    with pytest.raises(
        EngineMismatchError, match=r"GPU NVIDIA H200, this is NVIDIA L4.*--no-build"
    ):
        find_or_build_plan(job(target=other), lambda line: None, may_build=False)
    assert api.builds == 1


def test_an_engine_that_failed_stays_refused(api: FakeBuilderApi, verdict: Verdict) -> None:
    verdict(0.5)
    for _ in range(2):
        with pytest.raises(ParityError, match=r"50\.0000% of the labels.*99\.9000%") as caught:
            find_or_build_plan(job(), lambda line: None)
        assert caught.value.exit_code == 5
    assert api.builds == 1


def test_what_cannot_run_here_is_not_compared_and_says_so(
    api: FakeBuilderApi, tmp_path: Path
) -> None:
    notes: list[str] = []
    facts = write_engine(job(target=replace(TARGET, gpu=None)), tmp_path / "x.engine", notes.append)
    assert facts.spec.parity is None
    assert any("parity: null" in line and "fasterseg verify" in line for line in notes)


def test_a_folder_that_cannot_be_written_is_found_before_the_build(
    api: FakeBuilderApi, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError):
        write_engine(job(), tmp_path / "file" / "x.engine", lambda line: None)
    assert api.builds == 0


def test_graphs_keep_the_operators_that_plugins_take(api: FakeBuilderApi) -> None:
    onnx = pytest.importorskip("onnx")
    library = PluginLibrary(Path("lib.so"), "ab" * 32, 1)

    def functions(target: Target, emit: EmitOptions) -> set[str]:
        model = onnx.load_from_string(plan_store.onnx_for(job(target=target, emit=emit)))
        return {function.name for function in model.functions}

    with_plugins = replace(TARGET, plugins=library)
    assert functions(TARGET, FP16) == set()
    assert "UpsampleArgmax" in functions(with_plugins, FP16)
    assert "NormalizeBGR" not in functions(with_plugins, FP16)
    assert functions(with_plugins, EmitOptions()) == {"UpsampleArgmax"}


def test_an_engine_goes_with_its_companions(api: FakeBuilderApi, verdict: Verdict) -> None:
    path = find_or_build_plan(job(), lambda line: None)
    assert isinstance(path, Path)
    [entry] = [entry for entry in cache.entries() if entry.path == path]
    cache.remove([entry])
    assert not path.exists()
    assert not sidecar_path(path).exists()
    assert not layers_path(path).exists()


def test_a_verdict_is_not_taken_twice(
    api: FakeBuilderApi, verdict: Verdict, tmp_path: Path
) -> None:
    path = tmp_path / "x.engine"
    write_engine(job(), path, lambda line: None)
    verdict(0.1)
    compare_plan(job(), path, lambda line: None)
    assert read_facts(path).spec.parity is not None


def test_a_named_backend_never_falls_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "_load", lambda: FakeDriver(count=0))
    for name in ("tensorrt", "tensorrt-rtx"):
        with pytest.raises(DeviceUnavailableError, match=f"engine {name} needs an NVIDIA GPU"):
            open_engine(EngineRequest(engine=name, size=SIZE), SIZE, print)
    with pytest.raises(UsageError, match="auto, off"):
        open_engine(EngineRequest(engine="tensorrt", plugins="on"), SIZE, print)


def test_a_plan_file_is_opened_by_the_backend_of_its_sidecar(tmp_path: Path) -> None:
    write_plan(tmp_path / "x.engine", plan(backend="tensorrt-rtx"))
    with pytest.raises(DeviceUnavailableError, match="engine tensorrt-rtx"):
        open_engine(EngineRequest(engine=str(tmp_path / "x.engine")), SIZE, print)


def test_no_build_is_kept_for_onnx_engines_too() -> None:
    request = EngineRequest(device="cpu", size=SIZE, may_build=False)
    with pytest.raises(EngineMismatchError, match="--no-build"):
        open_engine(request, SIZE, print)
    open_engine(replace(request, may_build=True), SIZE, print).close()
    open_engine(request, SIZE, print).close()
