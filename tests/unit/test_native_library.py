"""Where the library of CPU kernels is looked for, and what is said when it cannot be used."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from fasterseg import native, native_library
from fasterseg.errors import EngineError, EngineMismatchError, MissingExtraError
from fasterseg.native_library import BUILD, ISA_VARIABLE, LIBRARY, VARIABLE
from tests.unit.cpp import toolchain

OTHER_VERSION = 'extern "C" int fasterseg_cpu_version() { return %d; }'
KINDS_OF_ISA = """
extern "C" int fasterseg_cpu_version() { return %d; }
extern "C" const char *fasterseg_cpu_message(int) { return ""; }
extern "C" const char *fasterseg_cpu_isas() { return "avx1024 baseline"; }
extern "C" const char *fasterseg_cpu_isa_name(int) { return "baseline"; }
extern "C" int fasterseg_cpu_isa(const char *name) {
  return !name || name[0] == 'b' ? 1 : name[0] == 'a' ? -5 : -4;
}
"""


@pytest.fixture(autouse=True)
def nothing_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.delenv(ISA_VARIABLE, raising=False)


@pytest.fixture
def nothing_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without the library."""
    monkeypatch.setattr(native_library, "_places", lambda: [Path("/nowhere") / LIBRARY])


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    native_library._opened.cache_clear()
    yield
    native_library._opened.cache_clear()


def compiled(folder: Path, text: str) -> Path:
    source, output = folder / "stand_in.cpp", folder / LIBRARY
    source.write_text(text, encoding="utf-8")
    compiler = toolchain.host_compiler()
    toolchain.run([compiler, "-shared", "-fPIC", source, "-o", output], folder)
    return output


@pytest.mark.usefixtures("nothing_found")
def test_missing_library_is_no_error_until_it_is_asked_for() -> None:
    assert native.find() is None
    assert native.info() is None
    with pytest.raises(MissingExtraError) as raised:
        native.require()
    assert BUILD in str(raised.value)
    labels = np.empty((1, 8, 8), np.uint8)
    with pytest.raises(MissingExtraError):
        native.upsample_argmax(np.zeros((1, 2, 1, 1), np.float32), labels)


def test_named_library_that_is_not_there_is_an_error_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "gone.so"))
    assert native.find() is None
    for ask in (native.info, native.require):
        with pytest.raises(MissingExtraError) as raised:
            ask()
        assert "gone.so is no file" in str(raised.value)
    assert native_library.how_to_mend() == f"unset {VARIABLE}"


@pytest.mark.parametrize(
    ("change", "age"), [(-1, "older"), (1, "newer")], ids=["too old", "too new"]
)
def test_library_of_another_version_is_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: int, age: str
) -> None:
    path = compiled(tmp_path, OTHER_VERSION % (native_library.VERSION + change))
    monkeypatch.setattr(native_library, "_places", lambda: [path])
    assert native.info() is None
    with pytest.raises(EngineMismatchError) as raised:
        native.require()
    assert f"it is {age}" in str(raised.value)
    assert BUILD in str(raised.value)


def test_file_that_is_no_library_is_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / LIBRARY
    path.write_text("no library", encoding="utf-8")
    monkeypatch.setenv(VARIABLE, str(path))
    with pytest.raises(EngineError) as raised:
        native.require()
    assert type(raised.value) is EngineError
    assert "cannot be loaded" in str(raised.value)


def test_library_of_somebody_else_cannot_be_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, str(compiled(tmp_path, "int other() { return 1; }")))
    with pytest.raises(EngineError, match="cannot be loaded"):
        native.require()


def test_instruction_set_that_the_cpu_lacks_or_nobody_knows_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = compiled(tmp_path, KINDS_OF_ISA % native_library.VERSION)
    monkeypatch.setattr(native_library, "_places", lambda: [path])
    assert native.require().isa == "baseline"
    monkeypatch.setenv(ISA_VARIABLE, "avx1024")
    for ask in (native.info, native.require):
        with pytest.raises(EngineError, match="this CPU does not have avx1024"):
            ask()
    monkeypatch.setenv(ISA_VARIABLE, "mmx")
    with pytest.raises(EngineError, match="it has avx1024, baseline"):
        native.require()
    assert native_library.how_to_mend() == f"unset {ISA_VARIABLE}"
    monkeypatch.setenv(ISA_VARIABLE, "baseline")
    assert native.info() == native.NativeInfo(path, "baseline", str(native_library.VERSION))


def test_library_in_the_package_comes_before_one_that_was_built_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside = tmp_path / "fasterseg" / "_native" / LIBRARY
    beside = tmp_path / "build" / "native" / LIBRARY
    sources = tmp_path / "cpp_plugins" / "cpu"
    monkeypatch.setattr(native_library, "_PACKAGE", tmp_path / "fasterseg")
    monkeypatch.setattr(native_library, "_SOURCES", sources)
    monkeypatch.setattr(native_library, "_installed", list)
    for path in (beside, inside):
        path.parent.mkdir(parents=True)
        path.touch()
    sources.mkdir(parents=True)
    assert native.find() == inside
    inside.unlink()
    assert native.find() == beside
    sources.rmdir()
    assert native.find() is None


def test_editable_install_is_found_where_pip_put_the_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(native_library, "_PACKAGE", tmp_path / "tree" / "fasterseg")
    monkeypatch.setattr(native_library, "_SOURCES", tmp_path)
    site = tmp_path / "site-packages"
    (site / "fasterseg-9.dist-info").mkdir(parents=True)
    metadata = "Metadata-Version: 2.4\nName: fasterseg\nVersion: 9\n"
    (site / "fasterseg-9.dist-info" / "METADATA").write_text(metadata, encoding="utf-8")
    library = site / "fasterseg" / "_native" / LIBRARY
    library.parent.mkdir(parents=True)
    library.touch()
    monkeypatch.syspath_prepend(str(site))
    assert native.find() == library
