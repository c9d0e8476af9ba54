"""Step `parity` of `gpu.py`: every GPU engine against the CPU reference, with trained weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import numpy as np
import torch
from gpu_contenders import Contender, Paddock, opened
from gpu_device import Device
from gpu_job import Case, Frames, Job
from gpu_run import Keeper, State, say
from numpy.typing import NDArray

from fasterseg.arch.plan import Plan
from fasterseg.bench.accuracy import score
from fasterseg.datasets import Split, dataset
from fasterseg.errors import ParityError
from fasterseg.graph.emit import EmitOptions
from fasterseg.nn.engine import TorchEngine
from fasterseg.nn.network import Network, upsample
from fasterseg.nn.weights import from_arrays
from fasterseg.runtime.base import PIXEL_AGREEMENT, Engine
from fasterseg.runtime.model import Model
from fasterseg.runtime.select import EngineRequest, open_engine
from fasterseg.runtime.store import describe
from fasterseg.types import Precision, Size

MARGIN: Final = {"fp32": 1e-4, "fp16": 0.01, "bf16": 0.08}
"""Labels must be equal where the two best logits differ by more than this share of the greatest
logit: some ten roundings of the precision in a row."""

MIOU_LIMIT: Final = 0.1
"""Points of mIoU that a precision may cost."""

SPLITS: Final[tuple[Split, ...]] = ("test", "val")
_BATCHES: Final = 4


@dataclass(frozen=True)
class Reference:
    """What is right for some frames.

    Attributes:
        labels: (N, H, W) uint8 each.
        margins: (N, H, W) float32 each: best logit less the second, at full size.
        greatest: largest absolute logit.
    """

    labels: list[Frames]
    margins: list[NDArray[np.float32]]
    greatest: float


def cpu_engine(model: Model, plan: Plan) -> TorchEngine:
    """The reference: the network as written, fp32, on the CPU."""
    network = Network(plan)
    from_arrays(network, model.load_weights(plan))
    return TorchEngine(network, describe(model, plan.size, EmitOptions()), "cpu")


def reference(model: Model, plan: Plan, frames: Sequence[Frames]) -> Reference:
    """Labels and margins of some batches."""
    labels, margins, greatest = [], [], 0.0
    with closing(cpu_engine(model, plan)) as engine:
        for batch in frames:
            logits = torch.from_numpy(engine.run_logits(batch))
            best = upsample(logits, plan.size).topk(2, dim=1)
            labels.append(best.indices[:, 0].to(torch.uint8).numpy())
            margins.append((best.values[:, 0] - best.values[:, 1]).numpy())
            greatest = max(greatest, float(logits.abs().max()))
    return Reference(labels, margins, greatest)


def parity(job: Job, keeper: Keeper, state: State) -> None:
    """Labels of all engines and variants, then mIoU of all precisions.

    Raises:
        ParityError: something is wrong; what was found is kept.
    """
    case = Case(job.cases[1].size)
    device = Device.of(job.device)
    frames = job.frames(case)[:_BATCHES]
    right = reference(job.network, job.plan(case.size), frames)
    keeper.keep(model=job.model, size=case.size, frames=len(frames), margins=MARGIN)
    rows: dict[str, Any] = {}
    paddock = Paddock(job, case, device, frames)
    for name, made in opened(_ours(paddock), device, say, lambda: True):
        if isinstance(made, str):
            rows[name] = {"error": made, "passed": False}
        else:
            rows[name] = against(made, device, right)
            made.close()
        keeper.keep(labels=rows)
    scores = accuracies(job, keeper)
    wrong = [name for name, row in {**rows, **scores}.items() if not row["passed"]]
    if wrong:
        raise ParityError(f"not what the CPU reference gives: {', '.join(wrong)}")


def _ours(paddock: Paddock) -> Iterator[tuple[str, Callable[[], Contender]]]:
    """All contenders that run the job's own model."""
    return ((name, make) for name, make in paddock.makers() if not name.startswith("released"))


def against(contender: Contender, device: Device, right: Reference) -> dict[str, Any]:
    """How a contender's labels differ from the right ones."""
    limit = MARGIN[contender.precision] * right.greatest
    equal, worst, beyond = [], 0.0, 0
    for number, (labels, margins) in enumerate(zip(right.labels, right.margins, strict=True)):
        with device.on_stream():
            contender.place(number)
            contender.launch()
        device.synchronize()
        differs = contender.labels() != labels
        equal.append(1 - float(differs.mean()))
        worst = max(worst, float(margins[differs].max(initial=0.0)))
        beyond += int(np.count_nonzero(differs & (margins > limit)))
    agreement = float(np.mean(equal))
    return {
        "precision": contender.precision,
        "agreement": agreement,
        "threshold": PIXEL_AGREEMENT[contender.precision],
        "worst_margin": worst,
        "margin_allowed": limit,
        "pixels_beyond": beyond,
        "passed": agreement >= PIXEL_AGREEMENT[contender.precision] and beyond == 0,
        "facts": contender.facts,
    }


def accuracies(job: Job, keeper: Keeper) -> dict[str, Any]:
    """MIoU of every precision beside the CPU reference's, on the packed CamVid."""
    if job.packed is None:
        keeper.keep(miou="no pack: not scored")
        return {}
    size = job.network.train_size
    engines: dict[str, Callable[[], Any]] = {
        "reference": lambda: cpu_engine(job.network, job.plan(size))
    }
    for precision in job.precisions:
        engines[precision] = partial(ours, job, precision, size)
    rows: dict[str, Any] = {}
    for split in SPLITS:
        for name, make in engines.items():
            with closing(make()) as engine:
                miou = scored(job, engine, split)
            base = rows.get(f"reference {split}", {}).get("miou", miou)
            drop = base - miou
            row = {"miou": miou, "difference": -drop, "passed": drop <= MIOU_LIMIT}
            rows[f"{name} {split}"] = row
            say(f"mIoU {split} {name}: {miou:.2f} %")
            keeper.keep(miou=rows)
    return rows


def ours(job: Job, precision: Precision, size: Size) -> Engine:
    """Our engine as `--engine torch` opens it."""
    request = EngineRequest(
        model=job.model, engine="torch", precision=precision, device=job.device, size=size
    )
    return open_engine(request, size, say)


def scored(job: Job, engine: Engine, split: Split) -> float:
    """MIoU in percent on a split; in a trial of two pictures."""
    assert job.packed is not None
    spec = dataset("camvid")
    pairs = spec.pairs(job.packed.camvid, split)
    return float(score(engine, spec, split, pairs[:2] if job.trial else pairs).to_json()["miou"])
