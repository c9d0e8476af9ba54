"""Put a trained model into the zoo: weights, record of its making and scores, model card.

    python benchmarks/ship_model.py RUN --root CAMVID     # evaluate on val, then once on test, write
    python benchmarks/ship_model.py --render              # the card again from its record
    python benchmarks/ship_model.py --check               # is the card what its record says?

RUN is the output folder of `fasterseg-search train`. Every evaluation on the test split is
appended to the record, so that nobody can test twice unseen.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import fasterseg
from fasterseg.bench.accuracy import score
from fasterseg.cache import write_atomic
from fasterseg.datasets import DATASETS
from fasterseg.runtime.model import ZOO
from fasterseg.runtime.select import EngineRequest, open_engine
from fasterseg.types import Size

NAME = "fasterseg-camvid"
RARE = "Bicyclist"
RECORD = ZOO / f"{NAME}.record.json"
CARD = ZOO / f"{NAME}.md"
WEIGHTS = ZOO / f"{NAME}.safetensors"
SIZE = Size(360, 480)


def evaluate(root: Path, split: Any, precision: str) -> dict[str, Any]:
    """Score the shipped model through ONNX Runtime on the CPU."""
    request = EngineRequest(model=NAME, engine="onnxruntime", precision=precision, device="cpu",
                            size=SIZE)  # fmt: skip
    dataset = DATASETS["camvid"]
    engine = open_engine(request, SIZE, lambda line: print(line, file=sys.stderr))
    try:
        report = score(engine, dataset, split, dataset.pairs(root, split))
    finally:
        engine.close()
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return {**report.to_json(), "fasterseg": fasterseg.__version__, "evaluated": now}


def ship(run: Path, root: Path) -> None:
    """Copy the weights, score them, write record, index and card."""
    card = json.loads((run / "model.json").read_text())
    data = (run / card["weights"]).read_bytes()
    write_atomic(WEIGHTS, data)
    index = json.loads((ZOO / "index.json").read_text())
    entry = index["models"][NAME]
    entry["weights"] = WEIGHTS.name
    entry["sha256"] = hashlib.sha256(data).hexdigest()
    entry["licence"] = "MIT (code, architecture); weights non-commercial (terms of CamVid)"
    entry["about"] = "FasterSeg student for the 11 CamVid classes, trained from scratch"
    write_atomic(ZOO / "index.json", (json.dumps(index, indent=2) + "\n").encode())
    record = json.loads(RECORD.read_text()) if RECORD.exists() else {"test_log": []}
    record["sha256"] = entry["sha256"]
    record["training"] = card["training"]
    log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    record["curve"] = [
        {"step": row["step"], "images": row["images"], "val_miou": row["val"]["miou"]}
        for row in log
        if "val" in row
    ]
    record["changes"] = [row for row in log if "note" in row]
    record["val"] = [evaluate(root, "val", precision) for precision in ("fp32", "fp16")]
    record["test"] = [evaluate(root, "test", precision) for precision in ("fp32", "fp16")]
    record["test_log"] += [
        {key: row[key] for key in ("evaluated", "source_sha256", "precision", "miou")}
        for row in record["test"]
    ]
    write_atomic(RECORD, (json.dumps(record, indent=1) + "\n").encode())
    write_atomic(CARD, render(record).encode())


def render(record: dict[str, Any]) -> str:
    """The model card of a record."""
    training = record["training"]
    settings = training["settings"]
    test = {row["precision"]: row for row in record["test"]}
    val = {row["precision"]: row for row in record["val"]}
    reference = test["fp32"]
    others = [v for k, v in reference["per_class_iou"].items() if k != RARE and v is not None]
    low, high = reference["miou_interval_95"]
    classes = "\n".join(
        f"| {name} | {shown(value)} | {shown(test['fp16']['per_class_iou'][name])} "
        f"| {shown(val['fp32']['per_class_iou'][name])} |"
        for name, value in reference["per_class_iou"].items()
    )
    curve = " · ".join(f"{row['images']:,}: {row['val_miou']:.1f}" for row in record["curve"])
    changes = "; ".join(f"at step {row['step']} {row['note']}" for row in record["changes"])
    tests = "\n".join(
        f"| {row['evaluated']} | `{row['source_sha256'][:12]}` | {row['precision']} "
        f"| {row['miou']:.2f} |"
        for row in record["test_log"]
    )
    return f"""# {NAME}

The FasterSeg student (ICLR 2020) with 11 classes, trained from scratch on CamVid by this project.
This page is generated from `{RECORD.name}` by `benchmarks/ship_model.py`.

| | |
| --- | --- |
| mIoU, test, fp32 | **{reference["miou"]:.2f} %** (95 % over frames: {low:.1f} to {high:.1f}) |
| mIoU, test, fp16 | {test["fp16"]["miou"]:.2f} % |
| mIoU, test, fp32, without {RARE} (0.2 % of the pixels) | {sum(others) / len(others):.2f} % |
| pixel accuracy, test, fp32 | {reference["pixel_accuracy"]:.2f} % |
| mIoU, val, fp32 (inside a training drive: optimistic) | {val["fp32"]["miou"]:.2f} % |
| evaluated at | {reference["size"]} (HxW), {reference["protocol"]}; other sizes: accuracy unknown |
| engine | {reference["engine"]} on a CPU; {reference["images"]} test frames |
| weights | {WEIGHTS.name}, averaged (EMA {settings["ema"]}), fp16, SHA-256 `{record["sha256"]}` |

Reproduce: `fasterseg-bench accuracy --root CAMVID --split test --size 360x480`.
The frames of a test drive are alike, so the true uncertainty is larger than the interval; one seed.

| class | IoU test fp32 | IoU test fp16 | IoU val fp32 |
| --- | --- | --- | --- |
{classes}

## Data and licence

CamVid (Brostow et al., ECCV 2008 and PRL 2009), the SegNet split at 360x480: 367 frames for training,
101 for validation, 233 for testing, 11 classes, void left out. Its terms allow research and personal
use only, so **these weights are for non-commercial use**. {settings["streets"]:.0%} of the training
pictures are streets rendered by this project ({settings["street_images"]} scenes, seed
{settings["seed"]}). Nothing else was seen; no pretraining.

## Training

{training["images"]:,} crops of {settings["crop"]} ({training["step"]:,} steps of
{settings["batch"]}) in {training["seconds"] / 60:.0f} minutes of two shared CPU cores,
{settings["precision"]}, {settings["optimizer"]["name"]} with {settings["optimizer"]["schedule"]}
decay from {settings["optimizer"]["lr"]}, seed {settings["seed"]}. Settings in full: `{RECORD.name}`.

Validation mIoU (%) of the averaged weights on {settings["evaluate_frames"]} frames, by pictures seen:
{curve}. The last weights were taken, none were chosen by score.
Changed during the run: {changes or "nothing"}. The settings in the record are the last ones.

## Every evaluation on the test split

| when | model | precision | mIoU |
| --- | --- | --- | --- |
{tests}

## Limits

Trained on daylight and dusk streets of one city from one camera. Thin and rare things (poles, signs,
pedestrians, cyclists) are found poorly. Not for anything on which safety depends.
"""


def shown(value: float | None) -> str:
    """An IoU for a table."""
    return "absent" if value is None else f"{value:.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("run", type=Path, nargs="?", help="output folder of the training")
    parser.add_argument("--root", type=Path, help="folder of CamVid")
    parser.add_argument("--render", action="store_true", help="write the card from its record")
    parser.add_argument(
        "--check", action="store_true", help="fail where the card is not its record"
    )
    arguments = parser.parse_args()
    if arguments.run is not None and arguments.root is not None:
        ship(arguments.run, arguments.root)
    elif arguments.render or arguments.check:
        text = render(json.loads(RECORD.read_text()))
        if arguments.check and CARD.read_text() != text:
            sys.exit(f"{CARD.name} is not what its record says; run with --render")
        if arguments.render:
            write_atomic(CARD, text.encode())
    else:
        parser.error("give RUN and --root, --render or --check")


if __name__ == "__main__":
    main()
