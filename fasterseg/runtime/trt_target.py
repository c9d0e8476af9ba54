"""What a TensorRT engine is built for, settled before anything is built: GPU, runtime, plugins."""

from __future__ import annotations

import platform
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, cast

from fasterseg.errors import EngineError, MissingExtraError, UnsupportedError
from fasterseg.runtime.driver import Gpu, arch_name
from fasterseg.runtime.plan_files import BuildOptions
from fasterseg.runtime.plugins import PluginLibrary, check_rtx, open_plugins
from fasterseg.runtime.trt_surface import Api, load_api
from fasterseg.types import Precision

RTX: Final = "tensorrt-rtx"
RTX_TARGETS: Final = ("sm_75", "sm_80", "sm_86", "sm_89", "sm_120")
"""What TensorRT-RTX builds for on a machine without a GPU: every GeForce and RTX since Turing."""

OLDEST_GPU: Final[dict[Precision, tuple[int, int]]] = {
    "fp32": (7, 5),
    "fp16": (7, 5),
    "bf16": (8, 0),
    "int8": (7, 5),
}
"""Precision -> lowest compute capability that TensorRT 10.13 and newer run it on."""


@dataclass(frozen=True)
class Target:
    """What a build is for.

    Attributes:
        backend: "tensorrt" or "tensorrt-rtx".
        version: of the installed runtime.
        gpu: of this machine, None without one.
        archs: compute capabilities of the engine ("sm_90").
        plugins: the library that is used, None for standard layers.
        system: operating system and processor.
    """

    backend: str
    version: str
    gpu: Gpu | None
    archs: tuple[str, ...]
    plugins: PluginLibrary | None = None
    system: str = field(default_factory=lambda: system_name())

    @property
    def can_run(self) -> bool:
        """Whether the engine runs on this machine."""
        return self.gpu is not None and self.gpu.arch in self.archs


def system_name() -> str:
    """`linux-x86_64`: plans do not leave their system."""
    return f"{platform.system().lower()}-{platform.machine().lower()}"


def find_target(
    backend: str,
    precision: Precision,
    options: BuildOptions,
    gpu: Gpu | None,
    on_note: Callable[[str], None],
) -> Target:
    """See what can be built here, before anything is.

    Args:
        backend: "tensorrt" or "tensorrt-rtx".
        precision: of the engine to come.
        options: how it is to be built.
        gpu: of this machine; TensorRT must have one, RTX need not.
        on_note: is told when plugins are wanted and not there.

    Raises:
        MissingExtraError: the runtime is not installed.
        UnsupportedError: the runtime or the GPU does not take the precision or the options.
    """
    api = load_api(backend)
    archs = _archs(api, backend, options, gpu)
    for arch in archs:
        if _numbers(arch) < OLDEST_GPU[precision]:
            raise UnsupportedError(
                f"precision {precision} needs compute capability "
                f"{arch_name(OLDEST_GPU[precision])} or newer, this is {arch}"
                f"{f' ({gpu.name})' if gpu else ''}. Choose another --precision, or --engine "
                "onnxruntime"
            )
    if backend == RTX and (options.version_compatible or options.hardware != "none"):
        raise UnsupportedError(
            "TensorRT-RTX has neither --version-compatible nor --hardware: its engines run on "
            "every GPU named with --target. Leave these options out, or use --engine tensorrt"
        )
    return Target(backend, api.__version__, gpu, archs, _plugins(backend, options, on_note))


def _archs(api: Api, backend: str, options: BuildOptions, gpu: Gpu | None) -> tuple[str, ...]:
    if backend != RTX:
        assert gpu is not None, "asked for before"
        if options.targets:
            raise UnsupportedError(
                "TensorRT builds for the GPU of this machine; --target is for --engine "
                "tensorrt-rtx. Build on the machine that will run it"
            )
        return (gpu.arch,)
    known = sorted(
        {
            f"sm_{name[2:]}"
            for name in dir(cast("Any", api).ComputeCapability)
            if name.startswith("SM")
        },
        key=_numbers,
    )
    wanted = options.targets or ((gpu.arch,) if gpu else RTX_TARGETS)
    for arch in wanted:
        if arch not in known:
            mine = " (this machine's GPU)" if gpu and arch == gpu.arch else ""
            raise UnsupportedError(
                f"TensorRT-RTX {api.__version__} does not build for {arch}{mine}; it knows "
                f"{', '.join(known)}. Use --engine tensorrt or onnxruntime there, or --target"
            )
    return tuple(wanted)


def _numbers(arch: str) -> tuple[int, int]:
    digits = arch.removeprefix("sm_")
    return (int(digits[:-1]), int(digits[-1])) if digits.isdigit() and digits[1:] else (0, 0)


def _plugins(
    backend: str, options: BuildOptions, on_note: Callable[[str], None]
) -> PluginLibrary | None:
    """The library, where it is wanted and can be used; its absence is no error."""
    if options.plugins == "off":
        return None
    try:
        library = open_plugins()
        if backend == RTX:
            check_rtx()
    except MissingExtraError:
        return None
    except EngineError as error:
        on_note(f"plugins are left out: {error}")
        return None
    return library
