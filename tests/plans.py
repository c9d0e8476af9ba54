"""Plans for tests: real descriptions, content that no runtime would take."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

from fasterseg.graph.emit import EmitOptions
from fasterseg.runtime.driver import Gpu
from fasterseg.runtime.model import resolve_model
from fasterseg.runtime.plan_files import BuildOptions, Plan, PlanFacts
from fasterseg.runtime.store import describe
from fasterseg.runtime.trt_target import system_name
from fasterseg.types import Size

SIZE = Size(64, 96)
GPU = Gpu("NVIDIA H200", (9, 0), "13.0")
DATA = b"a plan, as far as tests go"


def plan(data: bytes = DATA, *, emit: EmitOptions | None = None, **changes: Any) -> Plan:
    """A plan of `fasterseg-camvid` for `GPU` and TensorRT 10.16.1.11; `changes` to its facts."""
    emit = emit or EmitOptions(precision="fp16")
    spec = describe(resolve_model("fasterseg-camvid"), SIZE, emit)
    facts = PlanFacts(
        spec=replace(spec, runtime="tensorrt 10.16.1.11", gpu=GPU.name, arch=GPU.arch),
        backend="tensorrt",
        version="10.16.1.11",
        system=system_name(),
        targets=(GPU.arch,),
        options=BuildOptions(),
        sha256=hashlib.sha256(data).hexdigest(),
        bytes=len(data),
        onnx_sha256="0" * 64,
        build_s=1.5,
        created="2026-11-22T12:00:00+00:00",
        cuda="13.0",
        layers={"CONVOLUTION": 45},
        inputs={"frames": "UINT8 (1, 64, 96, 3)"},
        outputs={"labels": "UINT8 (1, 64, 96)"},
    )
    return Plan(data, replace(facts, **changes))
