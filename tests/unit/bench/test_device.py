from __future__ import annotations

import mmap
from pathlib import Path

import pytest

import fasterseg
from fasterseg.bench.device import (
    GpuFacts,
    cpu_slug,
    detect,
    gpu_slug,
    parse_cpu_limit,
    parse_cpuinfo,
    parse_nvidia_smi,
    peak_memory_mb,
    reset_peak_memory,
    versions,
    with_clocks,
)
from fasterseg.errors import DeviceUnavailableError

X86 = """\
processor\t: 0
vendor_id\t: AuthenticAMD
cpu family\t: 25
model\t\t: 17
model name\t: AMD EPYC 9V74 80-Core Processor
cpu MHz\t\t: 2596.144
flags\t\t: fpu sse2 avx fma avx2 avx512f avx512_bf16 avx512_vnni

processor\t: 1
vendor_id\t: AuthenticAMD
cpu family\t: 25
model\t\t: 17
model name\t: AMD EPYC 9V74 80-Core Processor
cpu MHz\t\t: 3400.000
flags\t\t: fpu sse2 avx fma avx2 avx512f avx512_bf16 avx512_vnni
"""

ARM = """\
processor\t: 0
BogoMIPS\t: 62.50
Features\t: fp asimd evtstrm aes crc32 asimdhp asimddp i8mm
CPU implementer\t: 0x41
CPU architecture: 8
CPU part\t: 0xd05

processor\t: 1
BogoMIPS\t: 62.50
Features\t: fp asimd evtstrm aes crc32 asimdhp asimddp
CPU implementer\t: 0x41
CPU architecture: 8
CPU part\t: 0xd0b

Model\t\t: Some Board Rev 1.0
"""

H200 = "NVIDIA H200, 570.124.06, 9.0, 1980, 1980, 700.00, 143771\n"


def machine(root: Path, *, cpuinfo: str = X86, board: str | None = None, **files: str) -> Path:
    """A folder that looks like the root of a machine; `a__b` stands for the path a/b."""
    texts = {"proc__cpuinfo": cpuinfo, "proc__meminfo": "MemTotal:  24683520 kB\n", **files}
    if board:
        texts["proc__device-tree__model"] = board + "\0"
    for name, text in texts.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_x86_cpuinfo_gives_name_flags_and_mean_clock() -> None:
    cpu = parse_cpuinfo(X86)
    assert cpu.name == "AMD EPYC 9V74 80-Core Processor"
    assert cpu.model == "25/17"
    assert cpu.flags == ("avx", "avx2", "fma", "avx512f", "avx512_bf16", "avx512_vnni")
    assert cpu.mhz == 2998


def test_arm_cpuinfo_names_the_cores_and_keeps_flags_all_of_them_have() -> None:
    cpu = parse_cpuinfo(ARM)
    assert cpu.name == "Cortex-A55+Cortex-A76"
    assert cpu.flags == ("asimd", "asimdhp", "asimddp")
    assert cpu.model is None
    assert cpu.mhz is None


def test_unlisted_arm_core_is_named_by_its_numbers() -> None:
    text = "CPU implementer\t: 0x61\nCPU part\t: 0x022\n"
    assert parse_cpuinfo(text).name == "ARM implementer 0x61 part 0x022"


def test_empty_cpuinfo_is_unknown_not_guessed() -> None:
    cpu = parse_cpuinfo("")
    assert (cpu.name, cpu.model, cpu.flags, cpu.mhz) == (None, None, (), None)


@pytest.mark.parametrize(
    ("name", "model", "expected"),
    [
        ("AMD EPYC 9V74 80-Core Processor", "25/17", "amd-epyc-9v74-2c"),
        ("Intel(R) Xeon(R) Platinum 8375C CPU @ 2.90GHz", "6/106", "intel-xeon-platinum-8375c-2c"),
        ("AMD Ryzen 7 7840U with Radeon 780M Graphics", "25/116", "amd-ryzen-7-7840u-2c"),
        ("AMD EPYC", "25/17", "amd-epyc-25-17-2c"),
        ("Cortex-A55+Cortex-A76", None, "cortex-a55-cortex-a76-2c"),
        (None, None, "riscv64-2c"),
    ],
)
def test_cpu_slug_is_short_and_tells_processors_apart(
    name: str | None, model: str | None, expected: str
) -> None:
    assert cpu_slug(name, model, "riscv64", 2) == expected


def test_gpu_slug_drops_the_makers_words() -> None:
    assert gpu_slug("NVIDIA H200") == "h200"
    assert gpu_slug("NVIDIA GeForce GTX 1080 Ti") == "gtx-1080-ti"
    assert gpu_slug("NVIDIA A100-SXM4-80GB") == "a100-sxm4-80gb"


def test_nvidia_smi_answers_are_read_and_gaps_are_none() -> None:
    text = H200 + "Orin (nvgpu), 540.3.0, 8.7, [N/A], [Not Supported], [N/A], [N/A]\n"
    assert parse_nvidia_smi(text) == [
        GpuFacts("NVIDIA H200", "570.124.06", "9.0", 1980, 1980, 700, 143771),
        GpuFacts("Orin (nvgpu)", "540.3.0", "8.7", None, None, None, None),
    ]
    assert parse_nvidia_smi("No devices were found\n") == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [("150000 100000\n", 1.5), ("max 100000\n", None), ("-1 100000", None), ("", None)],
)
def test_cpu_limit_of_a_control_group(text: str, expected: float | None) -> None:
    assert parse_cpu_limit(text) == expected


def test_detected_cpu_states_what_the_machine_says(tmp_path: Path) -> None:
    root = machine(
        tmp_path,
        sys__devices__system__cpu__cpu0__cpufreq__scaling_governor="performance\n",
        **{"proc__self__cgroup": "0::/box\n", "sys__fs__cgroup__box__cpu.max": "300000 100000\n"},
    )
    device = detect(root=root, gpu_query=lambda: H200)
    assert device.id.startswith("amd-epyc-9v74-")
    assert device.name == "AMD EPYC 9V74 80-Core Processor"
    assert device.power_mode == "performance"
    assert device.driver is None
    assert device.details["memory_mb"] == 24105
    assert device.details["cpu"]["cores_limit"] == 3.0
    assert device.details["cpu"]["mhz"] == 2998
    assert device.details["gpu"]["name"] == "NVIDIA H200"
    assert device.details["board"] is None


def test_limit_of_an_older_control_group_is_read(tmp_path: Path) -> None:
    root = machine(
        tmp_path,
        **{
            "sys__fs__cgroup__cpu__cpu.cfs_quota_us": "50000\n",
            "sys__fs__cgroup__cpu__cpu.cfs_period_us": "100000\n",
        },
    )
    assert detect(root=root, gpu_query=lambda: None).details["cpu"]["cores_limit"] == 0.5


def test_detected_gpu_is_the_device_of_a_cuda_record(tmp_path: Path) -> None:
    device = detect([], "cuda", root=machine(tmp_path), gpu_query=lambda: H200)
    assert (device.id, device.name, device.arch) == ("h200", "NVIDIA H200", "sm_90")
    assert (device.driver, device.sm_clock_mhz) == ("570.124.06", 1980)
    assert device.details["cpu"]["name"] == "AMD EPYC 9V74 80-Core Processor"


def test_gpu_of_a_board_without_nvidia_smi_has_the_boards_name(tmp_path: Path) -> None:
    root = machine(tmp_path, cpuinfo=ARM, board="NVIDIA Jetson Orin NX")
    device = detect([], "cuda", root=root, gpu_query=lambda: None)
    assert device.id == "jetson-orin-nx"
    assert device.sm_clock_mhz is None


def test_gpu_that_nobody_names_is_an_error_not_a_guess(tmp_path: Path) -> None:
    with pytest.raises(DeviceUnavailableError, match="nvidia-smi"):
        detect([], "cuda", root=machine(tmp_path), gpu_query=lambda: None)


def test_facts_of_an_unknown_system_are_none(tmp_path: Path) -> None:
    device = detect(root=tmp_path, gpu_query=lambda: None)
    assert device.power_mode is None
    assert device.details["memory_mb"] is None
    assert device.details["gpu"] is None
    assert device.details["cpu"]["name"] is None


def test_arm_clock_comes_from_cpufreq(tmp_path: Path) -> None:
    clock = "sys__devices__system__cpu__cpu0__cpufreq__scaling_cur_freq"
    root = machine(tmp_path, cpuinfo=ARM, **{clock: "1800000\n"})
    assert detect(root=root, gpu_query=lambda: None).details["cpu"]["mhz"] == 1800


def test_clocks_are_read_again_after_the_last_run(tmp_path: Path) -> None:
    device = detect(root=machine(tmp_path), gpu_query=lambda: None)
    machine(tmp_path, cpuinfo=X86.replace("2596.144", "3400.000"))
    later = with_clocks(device, root=tmp_path)
    assert later.details["cpu"]["mhz"] == 3400
    assert later.details["memory_mb"] == device.details["memory_mb"]
    assert device.details["cpu"]["mhz"] == 2998


def test_versions_name_what_took_part_and_leave_out_what_is_absent() -> None:
    found = versions(["pytest", "no-such-runtime"])
    assert found["fasterseg"] == fasterseg.__version__
    assert found["pytest"] == pytest.__version__
    assert {"numpy", "opencv", "python"} <= set(found)
    assert "no-such-runtime" not in found


def test_peak_memory_is_that_since_the_reset() -> None:
    if not reset_peak_memory():
        pytest.skip("this system cannot reset the peak")
    before = peak_memory_mb()
    # Mapped here, not allocated: what an allocator frees may stay with the process.
    with mmap.mmap(-1, 64 << 20) as block:
        block.write(b"\1" * len(block))
        during = peak_memory_mb()
    reset_peak_memory()
    after = peak_memory_mb()
    assert before is not None
    assert during is not None
    assert after is not None
    assert during > before + 50
    assert after < during - 50
