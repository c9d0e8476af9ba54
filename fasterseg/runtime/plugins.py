"""Find and load the compiled libraries: TensorRT plugins and CUDA kernels.

They are looked for in `$FASTERSEG_PLUGINS` (a folder or the library itself), in the package, and
where `make plugins` puts them in a source tree. A library that is missing, one of another version
and one that cannot be loaded are three different errors.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from fasterseg.errors import EngineError, EngineMismatchError, MissingExtraError
from fasterseg.graph.functions import DOMAIN, PLUGIN_VERSION, zoomed_name
from fasterseg.runtime.kernels import BUILD, KernelLibrary
from fasterseg.runtime.trt_surface import Registry
from fasterseg.types import Precision

VARIABLE: Final = "FASTERSEG_PLUGINS"
PLUGINS: Final = "libfasterseg_tensorrt.so"
KERNELS: Final = "libfasterseg_kernels.so"
VERSION: Final = 1
"""Version of the plugins that graphs of this package need, `fasterseg_plugins_version()`."""

_TAIL: Final = ("UpsampleArgmax",)
_ZOOMED: Final = tuple(zoomed_name(convs, stride) for convs in (1, 2) for stride in (1, 2))
OPERATORS: Final[Mapping[Precision, tuple[str, ...]]] = {
    "fp32": _TAIL,
    "fp16": (*_TAIL, *_ZOOMED),
    "bf16": _TAIL,
    "int8": _TAIL,
}
"""Precision -> operators whose plugins compute in it; the others stay standard layers."""

RTX_LIBRARY: Final = "libtensorrt_rtx.so"

_PACKAGE: Final = Path(__file__).resolve().parent.parent
_FOLDERS: Final = (
    _PACKAGE / "lib",
    _PACKAGE.parent / "cpp_plugins" / "build",
    _PACKAGE.parent / "build" / "plugins",
)


@dataclass(frozen=True, slots=True)
class PluginLibrary:
    """A library of TensorRT plugins that can be loaded.

    Attributes:
        path: the shared library.
        sha256: of the file.
        version: of its plugins.
    """

    path: Path
    sha256: str
    version: int


def find_library(name: str) -> Path | None:
    """Where a compiled library lies, None where it was not built."""
    if own := os.environ.get(VARIABLE):
        # Who names a place means no other.
        path = Path(own).expanduser()
        candidates = [path] if path.name == name else [path / name]
    else:
        candidates = [folder / name for folder in _FOLDERS]
    return next((path for path in candidates if path.is_file()), None)


def open_plugins(path: Path | None = None) -> PluginLibrary:
    """Check the plugin library; nothing is registered yet.

    Args:
        path: the library; None looks for it.

    Raises:
        MissingExtraError: there is none.
        EngineMismatchError: its plugins are of another version.
        EngineError: it cannot be loaded, or is no plugin library.
    """
    path = path or find_library(PLUGINS)
    if path is None or not path.is_file():
        raise MissingExtraError(
            f"the TensorRT plugins ({PLUGINS}) are not there. Build them: {BUILD} (needs "
            f"nvcc and TensorRT's headers), or set {VARIABLE} to their folder, or use --plugins off"
        )
    try:
        library = ctypes.CDLL(str(path.resolve()))
        version = int(library.fasterseg_plugins_version())
        _ = library.getCreators
    except (OSError, AttributeError) as error:
        raise EngineError(
            f"{path} cannot be loaded as TensorRT plugins ({error}). Build them again: "
            f"{BUILD}, or use --plugins off"
        ) from error
    if version != VERSION:
        age = "older" if version < VERSION else "newer"
        raise EngineMismatchError(
            f"{path} has version {version} of the plugins, this fasterseg needs {VERSION}: it is "
            f"{age}. Build them again: {BUILD}, or use --plugins off"
        )
    return PluginLibrary(path, hashlib.sha256(path.read_bytes()).hexdigest(), version)


def check_rtx() -> None:
    """See that the parser of TensorRT-RTX will find its own library when it meets a plugin.

    It opens it by a name that the wheel does not contain, and ends the process when it fails.

    Raises:
        EngineError: it will not.
    """
    try:
        ctypes.CDLL(RTX_LIBRARY)
    except OSError as error:
        raise EngineError(
            f"TensorRT-RTX takes plugins only where {RTX_LIBRARY} is on the library path, and its "
            "wheel names it libtensorrt_rtx.so.1. Make a link of that name to the wheel's file "
            "in a folder, start with LD_LIBRARY_PATH set to it, or use --plugins off"
        ) from error


def register(registry: Registry, library: PluginLibrary, messages: Any) -> None:
    """Make the plugins known to a builder or a runtime.

    Args:
        registry: of the builder or runtime.
        library: checked by `open_plugins`.
        messages: what the runtime says (`runtime.trt_log.Messages`).

    Raises:
        EngineError: the runtime does not take the library.
    """
    messages.clear()
    # TensorRT registers a library once for a process; a second time is answered with None.
    if _missing(registry):
        registry.load_library(str(library.path.resolve()))
    if missing := _missing(registry):
        raise EngineError(
            f"{library.path} was loaded, but TensorRT knows no plugin {', '.join(missing)} of "
            f"version {PLUGIN_VERSION}: {messages.last}. Build the plugins for this TensorRT: "
            f"{BUILD}, or use --plugins off"
        )


def _missing(registry: Registry) -> list[str]:
    return [
        name
        for name in OPERATORS["fp16"]
        if registry.get_creator(name, PLUGIN_VERSION, DOMAIN) is None
    ]


def open_kernels(path: Path | None = None) -> KernelLibrary:
    """The CUDA kernels.

    Raises:
        MissingExtraError: they are not there.
        EngineMismatchError: they are of another version.
        EngineError: they cannot be loaded.
    """
    found = path or find_library(KERNELS)
    if found is None:
        raise MissingExtraError(
            f"the CUDA kernels ({KERNELS}) are not there. Build them: {BUILD} (needs nvcc), or "
            f"set {VARIABLE} to their folder"
        )
    return KernelLibrary(found)
