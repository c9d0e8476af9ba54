"""`README.md` of a model in a Triton repository: start the server, send it one frame."""

from __future__ import annotations

from typing import Final

import fasterseg
from fasterseg.deploy.triton_config import LABELS, Job
from fasterseg.runtime.base import METADATA_KEY
from fasterseg.runtime.plan_files import PlanFacts
from fasterseg.types import Size

IMAGE: Final = "nvcr.io/nvidia/tritonserver"
RELEASE: Final = "26.07-py3"
"""Release of Triton whose sources the configurations were written by; its ONNX Runtime is 1.27."""

_SMALLEST: Final = Size(512, 1024)


def readme_text(job: Job) -> str:
    """Markdown; every name in it is one that `deploy.triton.model_name` let through."""
    about = "a TensorRT plan" if job.plan else "ONNX for the server's ONNX Runtime"
    return (
        "\n\n".join(
            [
                f"# {job.name}",
                f"A model for Triton Inference Server: {about}, {job.spec.precision}, written by "
                f"fasterseg {fasterseg.__version__}. Its folder lies in a model repository; "
                "nothing of fasterseg is needed to serve it.",
                f"## Start\n\n{_start(job)}",
                f"## Send a frame\n\n{_client(job)}",
                f"## What goes in and comes out\n\n{_tensors(job)}",
                f"## Good to know\n\n{_notes(job)}",
            ]
        )
        + "\n"
    )


def _start(job: Job) -> str:
    release = RELEASE if job.plan is None else "RELEASE-py3"
    gpus = "" if job.device == "cpu" else " --gpus all"
    plugin = _plugin(job.plan)
    mount = f" \\\n  -v /path/to/{plugin}:/plugins/{plugin}:ro" if plugin else ""
    flags = "".join(f" \\\n  {flag}" for flag in _backend_flags(job.plan))
    command = (
        f"docker run --rm{gpus} -p 127.0.0.1:8000:8000 \\\n"
        f'  -v "$PWD:/models:ro"{mount} \\\n'
        f"  {IMAGE}:{release} tritonserver --model-repository=/models{flags}"
    )
    ready = f"curl -f localhost:8000/v2/models/{job.name}/ready && echo ready"
    where = "In the folder that holds this one"
    if job.device == "auto":
        where += " (without a GPU leave `--gpus all` out: the model runs on the CPU then)"
    return f"{where}:\n\n```sh\n{command}\n{ready}\n```" + _release_note(job.plan)


def _release_note(plan: PlanFacts | None) -> str:
    if plan is None:
        return ""
    gpu = plan.spec.gpu or "the GPU it was built for"
    says = (
        "The plan brings a runtime of its own, so a server with a newer TensorRT takes it, too: "
        "code inside it runs on the host."
        if plan.options.version_compatible
        else "RELEASE is the one whose release notes name this TensorRT; no other loads the plan."
    )
    return (
        f"\n\nThe plan was built by TensorRT {plan.version} for {gpu} "
        f"({', '.join(plan.targets)}). {says}"
    )


def _plugin(plan: PlanFacts | None) -> str | None:
    """The library that the server has to load; a version-compatible plan holds it."""
    if plan is None or plan.options.version_compatible:
        return None
    return next(iter(plan.spec.plugins), None)


def _backend_flags(plan: PlanFacts | None) -> list[str]:
    flags = []
    if plugin := _plugin(plan):
        flags.append(f"--backend-config=tensorrt,plugins=/plugins/{plugin}")
    if plan is not None and plan.options.version_compatible:
        flags.append("--backend-config=tensorrt,version-compatible=true")
    return flags


def _client(job: Job) -> str:
    height, width = job.example_size or _SMALLEST
    count = 1 if job.max_batch_size else job.spec.batch or 1
    batch = "frame[np.newaxis]" if count == 1 else f"np.stack([frame] * {count})"
    return f"""```python
import cv2
import numpy as np
import tritonclient.http as triton  # pip install 'tritonclient[http]' opencv-python-headless

client = triton.InferenceServerClient("localhost:8000")
frame = cv2.resize(cv2.imread("street.jpg"), ({width}, {height}))  # BGR; cv2 says width first
frames = triton.InferInput("frames", [{count}, {height}, {width}, 3], "UINT8")
frames.set_data_from_numpy({batch})
labels = client.infer("{job.name}", [frames]).as_numpy("labels")[0]  # ({height}, {width}) uint8
cv2.imwrite("labels.png", labels)
```"""


def _tensors(job: Job) -> str:
    height, width = job.spec.size or ("H", "W")
    n = "N" if job.max_batch_size else job.spec.batch
    classes = job.spec.num_classes
    return f"""| tensor | type | shape | holds |
| --- | --- | --- | --- |
| `frames` | UINT8 | {n}, {height}, {width}, 3 | pictures as OpenCV reads them: BGR, 0 to 255 |
| `labels` | UINT8 | {n}, {height}, {width} | the class of each pixel, 0 to {classes - 1} |

`{LABELS}` names the classes, a line each, from 0 on. Colours, the id that means no class, and all
else that is known of the engine are JSON in the parameter `{METADATA_KEY}` of the model's
configuration (`curl localhost:8000/v2/models/{job.name}/config`). `{LABELS}` is no
`label_filename`: Triton's classification extension takes the values of an output for scores of
classes, and these are classes."""


def _notes(job: Job) -> str:
    notes = [_batching(job)]
    if job.spec.size is None:
        notes.append(_sizes(job))
    if job.plan is None and job.device != "cpu":
        notes.append(
            "On a GPU, Triton 24.07 or newer is needed: TF32 is switched off by an option of its "
            "ONNX Runtime (`use_tf32`), so that fp32 is fp32."
        )
    if job.plan is None and job.spec.precision == "int8":
        notes.append(
            "int8 is written for CPUs. On a GPU a TensorRT plan is the way: `fasterseg build`, "
            "then `fasterseg export FILE.engine --format triton`."
        )
    if plugin := _plugin(job.plan):
        assert job.plan is not None, "plugins belong to a plan"
        notes.append(
            f"The plan needs `{plugin}` with SHA-256 `{job.plan.spec.plugins[plugin]}`: `make "
            "plugins` of fasterseg builds it."
        )
    if not job.spec.trained:
        notes.append("The weights are untrained (seeded random): class maps mean nothing.")
    notes.append(
        "Triton asks nobody for a password: the port above is open to this machine alone. The "
        "configuration follows Triton's own definition; fasterseg's tests ran no server."
    )
    return "\n".join(f"- {note}" for note in notes)


def _batching(job: Job) -> str:
    if job.max_batch_size > 1:
        return (
            f"Up to {job.max_batch_size} frames of all clients share a call. For that, a frame "
            f"waits {job.queue_delay_us / 1000:g} ms at most (`max_queue_delay_microseconds`)."
        )
    if job.max_batch_size == 1:
        return "Each call holds one frame (`max_batch_size`)."
    return (
        f"A request is exactly {job.spec.batch} {'frame' if job.spec.batch == 1 else 'frames'}: "
        "the engine's batch is fixed, so the server does not gather frames of several clients."
    )


def _sizes(job: Job) -> str:
    if job.plan is not None and job.plan.options.dynamic:
        low, best, high = job.plan.options.dynamic
        return f"Frames may be {low} to {high} (height x width); it is fastest at {best}."
    return "Frames may have any size from 64x64 on; only frames of one size share a call."
