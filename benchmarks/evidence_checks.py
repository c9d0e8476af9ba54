"""What can be checked, and the lines of the README's evidence table that it stands in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal


@dataclass(frozen=True)
class Check:
    """Tests that together show something.

    Attributes:
        name: for the command line and the records.
        tests: arguments of pytest.
        proofs: the tests that carry the claim: every case of each must pass. Where none is named,
            all of them carry it, and a single skipped one is no pass.
        device: what they run on, "cpu" or "cuda".
        shows: what a pass shows, for the table.
    """

    name: str
    tests: tuple[str, ...]
    proofs: tuple[str, ...]
    device: Literal["cpu", "cuda"]
    shows: str


@dataclass(frozen=True)
class Row:
    """A line of the table.

    Attributes:
        part: what it is about.
        engine: backend and device whose benchmark records say that it ran.
        runs: checks that say so too.
        lesser: checks that show less than that.
    """

    part: str
    engine: tuple[str, str] | None = None
    runs: tuple[str, ...] = ()
    lesser: tuple[str, ...] = ()


CPP: Final = "tests/unit/cpp"
CHECKS: Final = (
    Check(
        "torch-cpu",
        ("tests/unit/nn/test_engine.py",),
        ("test_labels_equal_those_of_onnx_runtime",),
        "cpu",
        "labels equal ONNX Runtime's",
    ),
    Check(
        "rtx-build",
        ("tests/integration/test_tensorrt_rtx.py",),
        ("test_student_and_teacher_build_at_1024x2048_in_their_own_types",),
        "cpu",
        "parsed and built on CPU, never executed",
    ),
    Check(
        "tensorrt-calls",
        ("tests/integration/test_tensorrt_bindings.py",),
        ("test_tensorrt_has_what_we_call",),
        "cpu",
        "what we call exists in the bindings of 10.x and 11.x",
    ),
    Check(
        "tensorrt-logic",
        ("tests/unit/runtime/test_trt.py", "tests/unit/runtime/test_trt_build.py"),
        (),
        "cpu",
        "logic of our builder and runner against a stand-in",
    ),
    Check(
        "kernels-emulated",
        (
            f"{CPP}/test_index_maths.py",
            f"{CPP}/test_normalize_bgr.py",
            f"{CPP}/test_resize.py",
            f"{CPP}/test_upsample_argmax.py",
            f"{CPP}/test_zoomed_conv.py",
        ),
        (
            "test_places_are_exact_at_every_size_up_to_96_by_200",
            "test_output_equals_the_reference_bit_for_bit",
            "test_labels_are_exact_at_every_small_size",
            "test_every_small_height_with_odd_and_even_widths",
        ),
        "cpu",
        "index arithmetic and kernels emulated on CPU equal the reference",
    ),
    Check(
        "kernels-compiled",
        (f"{CPP}/test_build.py", "--run-slow"),
        ("test_nothing_spills_on_any_architecture",),
        "cpu",
        "compiled for sm_75 to sm_120, nothing spilled",
    ),
    Check("kernels-gpu", ("tests/gpu/test_kernels.py",), (), "cuda", "equal the reference"),
    Check(
        "torch-gpu",
        (
            "tests/gpu/test_fused_gpu.py",
            "tests/gpu/test_cuda_engine_gpu.py",
            "tests/gpu/test_snippet_gpu.py",
        ),
        (),
        "cuda",
        "labels equal the reference",
    ),
    Check(
        "torch-gpu-logic",
        ("tests/unit/nn/test_fused.py", "tests/unit/nn/test_lanes.py"),
        (),
        "cpu",
        "launches, lanes and emulated kernels give the reference's labels on CPU",
    ),
    Check(
        "plugins-compiled",
        (f"{CPP}/test_plugins_build.py",),
        ("test_library_exports_what_tensorrt_asks_for_and_its_version_only",),
        "cpu",
        "compiled with NVIDIA's headers",
    ),
    Check(
        "harness",
        (f"{CPP}/test_harness.py", "-m", "not gpu"),
        ("test_each_harness_drives_each_library",),
        "cpu",
        "driven through their life on CPU, kernels emulated",
    ),
    Check(
        "harness-gpu",
        ("tests/gpu", "-k", "harness or plugin"),
        (),
        "cuda",
        "driven through their life, results equal the reference",
    ),
    Check(
        "plugins-rtx",
        (f"{CPP}/test_plugins_rtx.py",),
        ("test_real_networks_are_built_with_plugins",),
        "cpu",
        "taken by parser and builder of TensorRT-RTX on CPU, never executed",
    ),
)

ROWS: Final = (
    Row("ONNX Runtime, CPU", engine=("onnxruntime", "cpu")),
    Row("ONNX Runtime, CUDA", engine=("onnxruntime", "cuda")),
    Row("OpenVINO, CPU", engine=("openvino", "cpu")),
    Row("torch, CPU", engine=("torch", "cpu"), runs=("torch-cpu",)),
    Row("torch, CUDA", engine=("torch", "cuda"), runs=("torch-gpu",), lesser=("torch-gpu-logic",)),
    Row("TensorRT", engine=("tensorrt", "cuda"), lesser=("tensorrt-calls", "tensorrt-logic")),
    Row("TensorRT-RTX", engine=("tensorrt-rtx", "cuda"), lesser=("rtx-build",)),
    Row(
        "CUDA kernels",
        runs=("kernels-gpu",),
        lesser=("kernels-emulated", "kernels-compiled"),
    ),
    Row("plugins in our harness", runs=("harness-gpu",), lesser=("harness", "plugins-compiled")),
    Row("plugins inside TensorRT", lesser=("plugins-rtx",)),
)
