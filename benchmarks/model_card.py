"""The model card of `fasterseg-camvid` as text, from its record alone."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

RARE = "Bicyclist"

Row = dict[str, Any]


def without_rare(row: Row) -> float:
    """The mIoU in percent without the rarest class."""
    others = [v for k, v in row["per_class_iou"].items() if k != RARE and v is not None]
    return float(sum(others) / len(others))


def shown(value: float | None) -> str:
    """An IoU for a table."""
    return "absent" if value is None else f"{value:.1f}"


def origin(runs: Iterable[Row]) -> str:
    """Where the weights came from, for people."""
    runs = list(runs)
    history = [stretch for run in runs[:1] for stretch in run["training"].get("history", [])]
    started = {s["init"]["model"] for s in history if s.get("init")}
    taught = {s["teacher"]["model"] for s in history if s.get("teacher")}
    text = f"trained from {' and '.join(sorted(started))}" if started else "trained from scratch"
    text += f", distilled from {' and '.join(sorted(taught))}" if taught else ""
    return text + (f", gone on with {len(runs) - 1} times" if len(runs) > 1 else "")


def render(name: str, record: Row) -> str:
    """The model card of a record."""
    test = {(row["engine"], row["precision"]): row for row in record["test"]}
    val = {(row["engine"], row["precision"]): row for row in record["val"]}
    reference = test["onnxruntime", "fp32"]
    runs = record["runs"]
    settings = runs[-1]["training"]["settings"]
    picture = f"\n![curves]({record['curves']})\n" if "curves" in record else ""
    return f"""# {name}

The FasterSeg student (ICLR 2020) with 11 classes, {origin(runs)} on CamVid by this project.
This page is generated from `{name}.record.json` by `benchmarks/ship_model.py`.

| | |
| --- | --- |
| mIoU, test, fp32 | **{reference["miou"]:.2f} %** (95 % over frames: {_interval(reference)}) |
| mIoU, test, fp32, without {RARE} (0.2 % of the pixels) | {without_rare(reference):.2f} % |
| pixel accuracy, test, fp32 | {reference["pixel_accuracy"]:.2f} % |
| mIoU, val, fp32 (inside a training drive: optimistic) | {val["onnxruntime", "fp32"]["miou"]:.2f} % |
| evaluated at | {reference["size"]} (HxW), {reference["protocol"]}; other sizes: accuracy unknown |
| frames | {reference["images"]} of test, {val["onnxruntime", "fp32"]["images"]} of val, on a CPU |
| weights | {name}.safetensors, averaged (EMA {settings["ema"]}), fp16, SHA-256 `{record["sha256"]}` |

Reproduce: `fasterseg-bench accuracy --root CAMVID --split test --size 360x480`.
The frames of a test drive are alike, so the true uncertainty is larger than the interval; one seed.

| engine | precision | mIoU test | against fp32 | 95 % over frames | without {RARE} | pixel accuracy | mIoU val |
| --- | --- | --- | --- | --- | --- | --- | --- |
{_engines(record["test"], reference, val)}

{_classes(record["test"], reference, val)}

## Data and licence

CamVid (Brostow et al., ECCV 2008 and PRL 2009), the SegNet split at 360x480: 367 frames for training,
101 for validation, {reference["images"]} for testing, 11 classes, void left out. Its terms allow research and
personal use only, so **these weights are for non-commercial use**. {settings["streets"]:.0%} of the training
pictures are streets rendered by this project ({settings["street_images"]} scenes, seed
{settings["seed"]}). {_pretraining(runs)}

## Training

{"".join(_run(run) for run in runs)}
The last weights of each were taken, none were chosen by score within a run.{_selection(runs)}
Settings in full: `{name}.record.json`.
{picture}
## Every evaluation on the test split

| when | model | engine | precision | mIoU |
| --- | --- | --- | --- | --- |
{_log(record["test_log"])}

## Limits

Trained on daylight and dusk streets of one city from one camera. Thin and rare things (poles, signs,
pedestrians, cyclists) are found poorly. Not for anything on which safety depends.
"""


def _pretraining(runs: list[Row]) -> str:
    plain = origin(runs[:1]) == "trained from scratch"
    return "Nothing else was seen; no pretraining." if plain else "See above for where it started."


def _selection(runs: list[Row]) -> str:
    """What val has decided, beyond the last weights of the first run."""
    if len(runs) == 1:
        return ""
    return (
        " Runs after the first went on from the weights before them and were kept because val\n"
        "gained; those that did not gain are in the training file."
    )


def _interval(row: Row) -> str:
    low, high = row["miou_interval_95"]
    return f"{low:.1f} to {high:.1f}"


def _engines(rows: Iterable[Row], reference: Row, val: dict[tuple[str, str], Row]) -> str:
    lines = []
    for row in rows:
        key = row["engine"], row["precision"]
        cells = (
            *key, f"{row['miou']:.2f}", f"{round(row['miou'] - reference['miou'], 2) + 0.0:+.2f}", _interval(row),
            f"{without_rare(row):.2f}", f"{row['pixel_accuracy']:.2f}", f"{val[key]['miou']:.2f}",
        )  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _classes(rows: list[Row], reference: Row, val: dict[tuple[str, str], Row]) -> str:
    """IoU of every class: test by precision, val in fp32."""
    shown_rows = [row for row in rows if row["engine"] == "onnxruntime"]
    heads = [f"IoU test {row['precision']}" for row in shown_rows]
    lines = [
        f"| class | {' | '.join(heads)} | IoU val fp32 |",
        "| --- |" + " --- |" * (len(heads) + 1),
    ]
    for name in reference["per_class_iou"]:
        cells = [shown(row["per_class_iou"][name]) for row in shown_rows]
        cells.append(shown(val["onnxruntime", "fp32"]["per_class_iou"][name]))
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _run(run: Row) -> str:
    training = run["training"]
    settings = training["settings"]
    optimizer = settings["optimizer"]
    curve = " · ".join(f"{at['images']:,}: {at['val_miou']:.1f}" for at in run["curve"])
    changes = "; ".join(f"at step {row['step']} {row['note']}" for row in run["changes"])
    return f"""- {training["images"]:,} crops of {settings["crop"]} ({training["step"]:,} steps of {settings["batch"]}) in
  {training["seconds"] / 60:.0f} minutes, {settings["precision"]}, {optimizer["name"]} with {optimizer["schedule"]} decay
  from {optimizer["lr"]:g}, seed {settings["seed"]}. Val mIoU (%) of the averaged weights on
  {settings["evaluate_frames"] or "all"} frames, by crops seen: {curve or "not looked at"}.
  Changed during the run: {changes or "nothing"}.
"""


def _log(rows: Iterable[Row]) -> str:
    return "\n".join(
        f"| {row['evaluated']} | `{row['source_sha256'][:12]}` | {row.get('engine', 'onnxruntime')} "
        f"| {row['precision']} | {row['miou']:.2f} |"
        for row in rows
    )
