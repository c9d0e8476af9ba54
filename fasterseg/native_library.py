"""The library of CPU kernels: found, loaded and checked once; which instruction set it runs."""

from __future__ import annotations

import ctypes
import importlib.metadata
import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from fasterseg.errors import EngineError, EngineMismatchError, MissingExtraError

VERSION: Final = 1
"""Version of the interface that `fasterseg.native` mirrors, `FASTERSEG_CPU_VERSION`."""

LIBRARY: Final = "libfasterseg_cpu.so"
VARIABLE: Final = "FASTERSEG_NATIVE"
ISA_VARIABLE: Final = "FASTERSEG_NATIVE_ISA"

_PACKAGE: Final = Path(__file__).resolve().parent
_INSIDE: Final = f"_native/{LIBRARY}"
_SOURCES: Final = _PACKAGE.parent / "cpp_plugins" / "cpu"
BUILD: Final = (
    "make native"
    if _SOURCES.is_dir()
    else "pip install --force-reinstall --no-deps --no-binary fasterseg fasterseg"
)
"""The command that makes the library: in a source tree, else for an installed package."""

_NO_ISA: Final = -5


@dataclass(frozen=True, slots=True)
class NativeInfo:
    """The library in use.

    Attributes:
        path: the file.
        isa: instruction set of the kernels that run: "avx512", "avx2", "neon" or "baseline".
        version: of its interface.
    """

    path: Path
    isa: str
    version: str


@dataclass(frozen=True)
class Library:
    """A loaded library and the instruction set chosen in it.

    Attributes:
        info: what it is.
        isa: number of the instruction set, as the kernels take it.
        functions: the C functions.
    """

    info: NativeInfo
    isa: int
    functions: Any

    def call(self, name: str, arguments: ctypes.Structure) -> None:
        """Run a kernel.

        Raises:
            EngineError: it refuses the arguments.
        """
        result = int(getattr(self.functions, f"fasterseg_cpu_{name}")(ctypes.byref(arguments)))
        if result:
            message = bytes(self.functions.fasterseg_cpu_message(result)).decode()
            raise EngineError(f"native {name}: {message} (result {result})")


def find() -> Path | None:
    """Where the library lies, None where there is none.

    A place named by `$FASTERSEG_NATIVE` is the only one looked at.
    """
    if own := os.environ.get(VARIABLE):
        path = Path(own).expanduser()
        return path if path.is_file() else None
    return next((path for path in _places() if path.is_file()), None)


def _places() -> list[Path]:
    places = [_PACKAGE / _INSIDE]
    if _SOURCES.is_dir():
        places.append(_PACKAGE.parent / "build" / "native" / LIBRARY)
        # An editable install keeps the modules here and what it compiled in site-packages.
        places += _installed()
    return places


def _installed() -> list[Path]:
    try:
        distribution = importlib.metadata.distribution("fasterseg")
    except importlib.metadata.PackageNotFoundError:
        return []
    return [Path(str(distribution.locate_file(f"fasterseg/{_INSIDE}")))]


def info() -> NativeInfo | None:
    """The library that calls use, None where none can be used; cached.

    Raises:
        EngineError: `$FASTERSEG_NATIVE` or `$FASTERSEG_NATIVE_ISA` asks for what is not to be had.
    """
    place, isa = os.environ.get(VARIABLE), os.environ.get(ISA_VARIABLE)
    found = _opened(place, isa)
    if isinstance(found, Library):
        return found.info
    if place or isa:
        raise found
    return None


def require() -> NativeInfo:
    """The library that calls use.

    Raises:
        MissingExtraError: there is none.
        EngineMismatchError: it is of another version of the interface.
        EngineError: it cannot be loaded, or lacks the instruction set asked for; the others are
            of this kind, too. Every message says what to do.
    """
    return library().info


def how_to_mend() -> str:
    """The command that makes an unusable library usable."""
    asked = [name for name in (VARIABLE, ISA_VARIABLE) if os.environ.get(name)]
    return f"unset {' '.join(asked)}" if asked else BUILD


def library() -> Library:
    """The loaded library; errors as `require`."""
    found = _opened(os.environ.get(VARIABLE), os.environ.get(ISA_VARIABLE))
    if isinstance(found, EngineError):
        raise found
    return found


@lru_cache(maxsize=16)
def _opened(place: str | None, isa: str | None) -> Library | EngineError:
    """The library, or why it cannot be used: a result, so that it is looked for once."""
    try:
        return _open(place, isa)
    except EngineError as error:
        return error


def _open(place: str | None, isa: str | None) -> Library:
    path = find()
    if path is None:
        where = f"{VARIABLE}={place} is no file" if place else f"{LIBRARY} is not there"
        raise MissingExtraError(
            f"the CPU kernels are missing: {where}. Use --tail graph, or build them (needs a C++ "
            f"compiler): {BUILD}"
        )
    try:
        functions = ctypes.CDLL(str(path.resolve()))
        version = int(functions.fasterseg_cpu_version())
    except (OSError, AttributeError) as error:
        raise EngineError(
            f"{path} cannot be loaded as the CPU kernels ({error}). Use --tail graph, or build "
            f"them again: {BUILD}"
        ) from error
    if version != VERSION:
        age = "older" if version < VERSION else "newer"
        raise EngineMismatchError(
            f"{path} has version {version} of the CPU kernels, this fasterseg needs {VERSION}: it "
            f"is {age}. Use --tail graph, or build them again: {BUILD}"
        )
    for name in ("message", "isas", "isa_name"):
        getattr(functions, f"fasterseg_cpu_{name}").restype = ctypes.c_char_p
    number = _number(functions, path, isa)
    name = bytes(functions.fasterseg_cpu_isa_name(number)).decode()
    return Library(NativeInfo(path, name, str(version)), number, functions)


def _number(functions: Any, path: Path, name: str | None) -> int:
    """Number of an instruction set in a library; None is the best that this CPU has."""
    number = int(functions.fasterseg_cpu_isa(name.encode() if name else None))
    if number >= 0:
        return number
    known = ", ".join(bytes(functions.fasterseg_cpu_isas()).decode().split())
    if number == _NO_ISA:
        raise EngineError(
            f"{ISA_VARIABLE}={name}, but this CPU does not have {name}. {path} holds {known}; "
            f"unset {ISA_VARIABLE} for the best that the CPU has"
        )
    raise EngineError(
        f"{ISA_VARIABLE}={name} is nothing that {path} holds: it has {known}; unset "
        f"{ISA_VARIABLE} for the best that the CPU has"
    )
