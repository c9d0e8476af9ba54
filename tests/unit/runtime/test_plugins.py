"""Finding, checking and registering the plugin library: three ways to fail, three errors."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from fasterseg.errors import EngineError, EngineMismatchError, MissingExtraError
from fasterseg.runtime import plugins
from fasterseg.runtime.trt_log import Messages

needs_compiler = pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc not installed")

SOURCE = """
int fasterseg_plugins_version(void) {{ return {version}; }}
void *getCreators(int *count) {{ *count = 0; return 0; }}
"""


def compiled(path: Path, source: str) -> Path:
    command = ["gcc", "-shared", "-fPIC", "-x", "c", "-", "-o", str(path)]
    subprocess.run(command, input=source, text=True, check=True)
    return path


def library(path: Path, version: int = plugins.VERSION) -> Path:
    return compiled(path, SOURCE.format(version=version))


@pytest.fixture(autouse=True)
def nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(plugins.VARIABLE, raising=False)
    monkeypatch.setattr(plugins, "_FOLDERS", ())


def test_a_missing_library_names_the_command_and_the_way_without() -> None:
    with pytest.raises(MissingExtraError, match=r"make plugins.*FASTERSEG_PLUGINS.*--plugins off"):
        plugins.open_plugins()


@needs_compiler
@pytest.mark.parametrize(("version", "age"), [(0, "older"), (99, "newer")])
def test_another_version_is_told_with_both(tmp_path: Path, version: int, age: str) -> None:
    path = library(tmp_path / plugins.PLUGINS, version)
    with pytest.raises(EngineMismatchError, match=rf"version {version} .*needs 1: it is {age}"):
        plugins.open_plugins(path)


@needs_compiler
@pytest.mark.parametrize("source", ["int x;", "int fasterseg_plugins_version(void) {return 1;}"])
def test_a_library_that_is_no_plugin_library_cannot_be_loaded(tmp_path: Path, source: str) -> None:
    path = compiled(tmp_path / plugins.PLUGINS, source)
    with pytest.raises(EngineError, match=r"cannot be loaded.*undefined symbol") as caught:
        plugins.open_plugins(path)
    assert type(caught.value) is EngineError


def test_a_file_that_is_no_library_cannot_be_loaded(tmp_path: Path) -> None:
    (tmp_path / plugins.PLUGINS).write_text("not ELF")
    with pytest.raises(EngineError, match=r"cannot be loaded.*make plugins"):
        plugins.open_plugins(tmp_path / plugins.PLUGINS)


@needs_compiler
def test_a_good_library_is_described(tmp_path: Path) -> None:
    found = plugins.open_plugins(library(tmp_path / plugins.PLUGINS))
    assert found.version == plugins.VERSION
    assert len(found.sha256) == 64


def test_the_variable_is_the_only_place_when_it_is_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("package", "own"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / plugins.KERNELS).touch()
    monkeypatch.setattr(plugins, "_FOLDERS", (tmp_path / "package", tmp_path / "own"))
    assert plugins.find_library(plugins.KERNELS) == tmp_path / "package" / plugins.KERNELS
    monkeypatch.setenv(plugins.VARIABLE, str(tmp_path / "own"))
    assert plugins.find_library(plugins.KERNELS) == tmp_path / "own" / plugins.KERNELS
    monkeypatch.setenv(plugins.VARIABLE, str(tmp_path / "package" / plugins.KERNELS))
    assert plugins.find_library(plugins.KERNELS) == tmp_path / "package" / plugins.KERNELS
    monkeypatch.setenv(plugins.VARIABLE, str(tmp_path / "nothing"))
    assert plugins.find_library(plugins.KERNELS) is None


def test_missing_kernels_name_their_command() -> None:
    with pytest.raises(MissingExtraError, match="make plugins"):
        plugins.open_kernels()


class FakeRegistry:
    """Knows the plugins of what was loaded."""

    def __init__(self, brings: tuple[str, ...]) -> None:
        self.brings, self.loaded = brings, list[str]()

    def load_library(self, path: str) -> Any:
        self.loaded.append(path)
        return object()

    def get_creator(self, name: str, version: str, namespace: str) -> Any:
        assert (version, namespace) == ("1", "fasterseg")
        return object() if self.loaded and name in self.brings else None


LIBRARY = plugins.PluginLibrary(Path("lib.so"), "ab" * 32, 1)


def test_a_library_is_registered_once() -> None:
    registry: Any = FakeRegistry(plugins.OPERATORS["fp16"])
    plugins.register(registry, LIBRARY, Messages())
    plugins.register(registry, LIBRARY, Messages())
    assert len(registry.loaded) == 1


def test_a_library_without_our_plugins_is_refused() -> None:
    registry: Any = FakeRegistry(("UpsampleArgmax",))
    with pytest.raises(EngineError, match=r"no plugin ZoomedConv1xS1, .* version 1"):
        plugins.register(registry, LIBRARY, Messages())


def test_rtx_without_its_unversioned_name_is_refused_before_it_ends_the_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def absent(name: str) -> Any:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr("ctypes.CDLL", absent)
    with pytest.raises(EngineError, match=r"LD_LIBRARY_PATH.*--plugins off"):
        plugins.check_rtx()
