"""What a figure was measured on: processor, GPU, limits, clocks, versions. Unknown is None."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import subprocess
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final

import fasterseg
from fasterseg.cores import usable_cores
from fasterseg.errors import DeviceUnavailableError
from fasterseg.types import DeviceInfo

_DISTRIBUTIONS: Final[Mapping[str, tuple[str, ...]]] = {
    "onnxruntime": ("onnxruntime-gpu", "onnxruntime"),
    "opencv": ("opencv-python-headless", "opencv-python"),
}
"""Name in the record -> distributions that provide it, where the two differ."""

_ALWAYS: Final = ("av", "numpy", "onnxruntime", "opencv")

_FLAGS: Final = (
    "avx", "avx2", "fma", "avx512f", "avx512_bf16", "avx512_vnni", "avx_vnni",
    "amx_bf16", "amx_int8", "amx_tile",
    "neon", "asimd", "asimdhp", "asimddp", "bf16", "i8mm", "sve", "sve2",
)  # fmt: skip
"""Instruction sets that change the speed of a network, as Linux spells them."""

_ARM_CORES: Final[Mapping[tuple[int, int], str]] = {
    (0x41, 0xD03): "Cortex-A53",
    (0x41, 0xD05): "Cortex-A55",
    (0x41, 0xD07): "Cortex-A57",
    (0x41, 0xD08): "Cortex-A72",
    (0x41, 0xD0B): "Cortex-A76",
    (0x41, 0xD0C): "Neoverse-N1",
    (0x41, 0xD40): "Neoverse-V1",
    (0x41, 0xD42): "Cortex-A78AE",
    (0x41, 0xD49): "Neoverse-N2",
    (0x41, 0xD4F): "Neoverse-V2",
    (0x4E, 0x004): "Carmel",
}
"""(implementer, part) in /proc/cpuinfo -> core; ARM kernels print no model name."""

_CPUFREQ: Final = "sys/devices/system/cpu/cpu0/cpufreq"

_GPU_FIELDS: Final = (
    "name", "driver_version", "compute_cap", "clocks.sm", "clocks.max.sm", "power.limit",
    "memory.total",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class CpuFacts:
    """What /proc/cpuinfo says.

    Attributes:
        name: model name, or the kinds of ARM core joined by "+".
        model: "family/model" numbers of an x86 processor.
        flags: the instruction sets among those that matter that every core has.
        mhz: mean clock of the cores at this moment.
    """

    name: str | None
    model: str | None
    flags: tuple[str, ...]
    mhz: int | None


@dataclass(frozen=True, slots=True)
class GpuFacts:
    """One line of nvidia-smi; None where it has no answer."""

    name: str
    driver: str | None
    compute_capability: str | None
    sm_clock_mhz: int | None
    sm_clock_max_mhz: int | None
    power_limit_w: int | None
    memory_mb: int | None


def parse_cpuinfo(text: str) -> CpuFacts:
    """Read the text of /proc/cpuinfo, of an x86 or an ARM kernel."""
    fields: defaultdict[str, list[str]] = defaultdict(list)
    for line in text.splitlines():
        key, colon, value = line.partition(":")
        if colon:
            fields[key.strip()].append(value.strip())
    per_core = [set(value.split()) for value in fields["flags"] or fields["Features"]]
    common = set.intersection(*per_core) if per_core else set()
    clocks = [float(value) for value in fields["cpu MHz"]]
    family, model = fields["cpu family"], fields["model"]
    return CpuFacts(
        name=_arm_cores(fields) or next(iter(fields["model name"]), None),
        model=f"{family[0]}/{model[0]}" if family and model else None,
        flags=tuple(flag for flag in _FLAGS if flag in common),
        mhz=round(sum(clocks) / len(clocks)) if clocks else None,
    )


def _arm_cores(fields: Mapping[str, list[str]]) -> str | None:
    pairs = zip(fields["CPU implementer"], fields["CPU part"], strict=False)
    names = [
        _ARM_CORES.get((int(maker, 16), int(part, 16)), f"ARM implementer {maker} part {part}")
        for maker, part in pairs
    ]
    return "+".join(dict.fromkeys(names)) or None


def parse_nvidia_smi(text: str) -> list[GpuFacts]:
    """Read the CSV answer of nvidia-smi (no header, no units), one GPU a line."""

    def known(value: str) -> str | None:
        return None if value.startswith("[") or value in ("", "N/A") else value

    def whole(value: str | None) -> int | None:
        return round(float(value)) if value else None

    found = []
    for line in text.splitlines():
        values = [known(value.strip()) for value in line.split(",")]
        if len(values) != len(_GPU_FIELDS) or values[0] is None:
            continue
        name, driver, capability, *numbers = values
        found.append(GpuFacts(str(name), driver, capability, *map(whole, numbers)))
    return found


def parse_cpu_limit(text: str) -> float | None:
    """CPUs a control group may use: "150000 100000" -> 1.5; None for no limit."""
    quota, _, period = text.strip().partition(" ")
    if quota in ("max", "-1", "") or not period:
        return None
    return int(quota) / int(period)


def cpu_slug(name: str | None, model: str | None, machine: str, cores: int) -> str:
    """Short id of a processor with the cores in use, such as "amd-epyc-9v74-2c".

    Hypervisors hide model numbers ("AMD EPYC"); family and model then tell machines apart.
    """
    text = re.sub(r"\((R|TM|r|tm)\)", "", name or machine)
    text = re.sub(r"@.*|\bwith .*|\b\d+-Core\b|\bProcessor\b|\bCPU\b", "", text)
    if model and not re.search(r"\d", text):
        text += f" {model}"
    return f"{_slug(text)}-{cores}c"


def gpu_slug(name: str) -> str:
    """Short id of a GPU: "NVIDIA GeForce GTX 1080 Ti" -> "gtx-1080-ti"."""
    return _slug(re.sub(r"\b(NVIDIA|GeForce)\b", "", name))


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def detect(
    runtimes: Iterable[str] = (),
    device: str = "cpu",
    *,
    root: Path = Path("/"),
    gpu_query: Callable[[], str | None] | None = None,
) -> DeviceInfo:
    """Describe this machine.

    Args:
        runtimes: engine backends that take part ("torch"); their versions are recorded beside
            those of Python, fasterseg, NumPy, ONNX Runtime, OpenCV and PyAV. One that is not
            found is left out.
        device: "cpu" or "cuda": what the record is about. The other is under `details`.
        root: where `proc` and `sys` are.
        gpu_query: gives nvidia-smi's answer, or None; default: ask it.

    Raises:
        DeviceUnavailableError: `device` is "cuda" and no GPU can be identified.
    """
    cpu = _cpu(root)
    gpus = parse_nvidia_smi((gpu_query or _ask_nvidia_smi)() or "")
    details = {
        "cpu": {
            **asdict(cpu),
            "flags": list(cpu.flags),
            "cores": os.cpu_count(),
            "cores_usable": usable_cores(),
            "cores_limit": _cpu_limit(root),
        },
        "gpu": asdict(gpus[0]) if gpus else None,
        "board": _board(root),
        "memory_mb": _memory_mb(root),
        "load_average": load_average(),
    }
    facts = _about_cpu(cpu, root) if device == "cpu" else _about_gpu(gpus, root)
    return replace(facts, runtimes=versions(runtimes), details=details)


def _about_cpu(cpu: CpuFacts, root: Path) -> DeviceInfo:
    machine = platform.machine()
    return DeviceInfo(
        id=cpu_slug(cpu.name, cpu.model, machine, usable_cores()),
        name=cpu.name or platform.processor() or machine,
        arch=machine,
        driver=None,
        cuda=None,
        os=_os_name(),
        power_mode=_read(root / _CPUFREQ / "scaling_governor"),
    )


def _about_gpu(gpus: list[GpuFacts], root: Path) -> DeviceInfo:
    # The GPU of a Jetson board answers to the name of the board.
    name = gpus[0].name if gpus else _board(root)
    if name is None:
        raise DeviceUnavailableError(
            "the GPU cannot be identified, so its figures would belong to no device: nvidia-smi "
            "gives no answer. Install the driver's tools and put nvidia-smi on the PATH"
        )
    capability = gpus[0].compute_capability if gpus else None
    return DeviceInfo(
        id=gpu_slug(name),
        name=name,
        arch=f"sm_{capability.replace('.', '')}" if capability else platform.machine(),
        driver=gpus[0].driver if gpus else None,
        cuda=None,
        os=_os_name(),
        sm_clock_mhz=gpus[0].sm_clock_mhz if gpus else None,
    )


def with_clocks(device: DeviceInfo, root: Path = Path("/")) -> DeviceInfo:
    """The same device with the clocks of this moment: call it right after the last run."""
    details = {**device.details, "cpu": {**device.details["cpu"], "mhz": _cpu(root).mhz}}
    gpus = parse_nvidia_smi(_ask_nvidia_smi() or "") if device.sm_clock_mhz is not None else []
    clock = gpus[0].sm_clock_mhz if gpus else device.sm_clock_mhz
    return replace(device, details=details, sm_clock_mhz=clock)


def load_average() -> float | None:
    """Processes that wanted a core in the last minute, on average; None where unknown."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def reset_peak_memory() -> bool:
    """Start the peak of this process's memory anew; False where the system cannot."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return False
    return True


def peak_memory_mb() -> float | None:
    """Largest resident memory of this process since `reset_peak_memory`, in MiB."""
    match = re.search(r"^VmHWM:\s+(\d+) kB", _read(Path("/proc/self/status")) or "", re.MULTILINE)
    return round(int(match[1]) / 1024, 1) if match else None


def _cpu(root: Path) -> CpuFacts:
    """What /proc/cpuinfo says, with the clock from cpufreq where it does not (ARM)."""
    cpu = parse_cpuinfo(_read(root / "proc/cpuinfo") or "")
    khz = _read(root / _CPUFREQ / "scaling_cur_freq")
    if cpu.mhz is None and khz is not None and khz.isdecimal():
        return replace(cpu, mhz=int(khz) // 1000)
    return cpu


def versions(runtimes: Iterable[str] = ()) -> dict[str, str]:
    """Versions of what takes part in a measurement; see `detect`."""
    found = {"fasterseg": fasterseg.__version__, "python": platform.python_version()}
    for name in sorted({*_ALWAYS, *runtimes}):
        for distribution in _DISTRIBUTIONS.get(name, (name,)):
            try:
                found[name] = importlib.metadata.version(distribution)
                break
            except importlib.metadata.PackageNotFoundError:
                continue
    return found


def _ask_nvidia_smi() -> str | None:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[0].strip()
    chosen = ["-i", visible] if visible else []
    query = [f"--query-gpu={','.join(_GPU_FIELDS)}", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(
            ["nvidia-smi", *chosen, *query], capture_output=True, text=True, timeout=20, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout


def _cpu_limit(root: Path) -> float | None:
    """The tightest CPU limit of the control groups around this process, in CPUs."""
    groups = root / "sys/fs/cgroup"
    own = re.search(r"^0::(/.*)$", _read(root / "proc/self/cgroup") or "", re.MULTILINE)
    folders = {groups, groups / own[1].lstrip("/")} if own else {groups}
    texts = [_read(folder / "cpu.max") for folder in folders]
    quota = _read(groups / "cpu/cpu.cfs_quota_us")
    period = _read(groups / "cpu/cpu.cfs_period_us")
    texts.append(f"{quota} {period}" if quota and period else None)
    limits = [parse_cpu_limit(text) for text in texts if text]
    return min((limit for limit in limits if limit is not None), default=None)


def _memory_mb(root: Path) -> int | None:
    text = _read(root / "proc/meminfo") or ""
    match = re.search(r"^MemTotal:\s+(\d+) kB", text, re.MULTILINE)
    return int(match[1]) // 1024 if match else None


def _board(root: Path) -> str | None:
    """Name of a single-board computer, None on a PC."""
    return (_read(root / "proc/device-tree/model") or "").strip("\0\n ") or None


def _os_name() -> str:
    try:
        system = platform.freedesktop_os_release().get("PRETTY_NAME", platform.system())
    except OSError:
        system = platform.system()
    return f"{system}, {platform.system()} {platform.release()}"


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None
