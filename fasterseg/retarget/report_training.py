"""The sections of a report that tell of trainings, and of logits that are trained."""

from __future__ import annotations

from collections.abc import Sequence

from fasterseg import plots
from fasterseg.plots.training import NOT_LOSSES
from fasterseg.retarget.report_parts import Figure, Section, Table, absent, milliseconds
from fasterseg.retarget.run_files import COSEARCH, PRETRAIN, Record, RunFiles
from fasterseg.search.corecord import UNMOVED


def courses_section(run: RunFiles) -> Section:
    """Losses of what was trained before the search."""
    title = "Training before the search"
    blocks = []
    logs = {
        "supernet": run.supernet_log,
        PRETRAIN: run.log(PRETRAIN),
        COSEARCH: run.log(COSEARCH),
    }
    for name, records in logs.items():
        losses = _losses(records)
        if "total" in losses:
            step, value = losses["total"][-1]
            note = f"{name}: loss {value:.4f} at step {step:,.0f}."
            blocks.append(Figure(plots.courses(losses, ("step", "loss")), note))
    if not blocks:
        return absent(title, "pretrain" if run.choosing_stage == "derive" else "supernet")
    return Section(title, [], blocks)


def _losses(records: Sequence[Record]) -> dict[str, list[tuple[float, float]]]:
    """Each loss term over the steps; the total comes first."""
    rows = [record for record in records if "total" in record]
    names = {name: None for row in rows for name in ("total", *row) if name not in NOT_LOSSES}
    return {
        name: [(float(row["step"]), float(row[name])) for row in rows if name in row]
        for name in names
    }


def logits_section(run: RunFiles) -> Section:
    """Entropy and margins of the architecture's logits, epoch by epoch."""
    title = "Did the logits move?"
    epochs = run.epochs
    if not epochs:
        return absent(title, COSEARCH)
    entropies, margins = (_by_name(epochs, key) for key in ("entropy", "margin"))
    blocks: list[Table | Figure] = [
        Figure(
            plots.courses(
                entropies, ("epoch", "mean normalised entropy"), (f"{UNMOVED:g}: unmoved", UNMOVED)
            ),
            "1: undecided, as at the beginning. 0: decided.",
        )
    ]
    if margins:
        svg = plots.courses(margins, ("epoch", "margin of the best over the second"))
        blocks.append(Figure(svg, "In logits, mean over the rows."))
    names = [*entropies]
    head = ("epoch", *(f"entropy of {n}" for n in names), *(f"margin of {n}" for n in margins))
    rows = [
        (
            str(record["epoch"]),
            *(f"{record['entropy'][n]:.4f}" for n in names),
            *(f"{record['margin'][n]:.4f}" for n in margins),
        )
        for record in (epochs[0], epochs[-1])
    ]
    tables = [Table(head, rows, "First and last epoch, means over all choices.")]
    if kinds := epochs[-1].get("groups"):
        by_kind = [(k, f"{v['entropy']:.4f}", f"{v['margin']:.4f}") for k, v in kinds.items()]
        tables.append(Table(("logits", "entropy", "margin"), by_kind, "Last epoch, by kind."))
    return Section(title, [], [*tables, *blocks])


def _by_name(epochs: Sequence[Record], key: str) -> dict[str, list[tuple[float, float]]]:
    names = epochs[-1].get(key, {})
    return {
        name: [(float(r["epoch"]), float(r[key][name])) for r in epochs if name in r.get(key, {})]
        for name in names
    }


def trained_section(run: RunFiles) -> Section:
    """Networks trained by one recipe, and their differences with intervals."""
    title = "Trained networks"
    blocks: list[Table | Figure] = []
    if run.comparison and (run.comparison["networks"] or run.comparison["ruled_out"]):
        blocks.append(_comparison_table(run.comparison))
    if trained := run.trained:
        blocks += [_arms_table(trained), _differences_table(trained["differences"])]
    vals = {
        name: [(float(r["images"]), float(r["val"]["miou"])) for r in records if "val" in r]
        for name, records in run.training_logs.items()
    }
    vals = {name: points for name, points in vals.items() if points}
    if vals:
        rows = [
            (name, f"{points[-1][0]:,.0f}", f"{points[-1][1]:.2f}", f"{_best(points):.2f}")
            for name, points in vals.items()
        ]
        head = ("training", "images so far", "val mIoU %, last", "val mIoU %, best")
        note = "On a part of val, while training; nothing is chosen by it."
        svg = plots.courses(vals, ("images seen", "val mIoU, %"))
        blocks += [Table(head, rows, note), Figure(svg)]
    if not blocks:
        return absent(title, "train")
    return Section(title, [], blocks)


def _best(points: Sequence[tuple[float, float]]) -> float:
    return max(value for _, value in points)


def _comparison_table(comparison: Record) -> Table:
    """Random networks drawn to be as fast: how far they are, and which are trained."""
    ms, tolerance = comparison["measured_ms"], comparison["tolerance"]
    rows = [
        (
            entry["digest"][:8],
            milliseconds(entry["predicted_ms"]),
            milliseconds(entry["measured_ms"]),
            "yes" if abs(entry["measured_ms"] / ms - 1) <= tolerance else "no",
            trained,
        )
        for trained, key in (("yes", "networks"), ("no", "ruled_out"))
        for entry in comparison.get(key, ())
    ]
    note = (
        f"Random networks as fast as the chosen one ({milliseconds(ms)} ms measured), drawn by "
        f"seed {comparison['seed']} and written down on {comparison['drawn']}, before any "
        f"training. Equal: within {100 * tolerance:g} %; the first of these are trained."
    )
    head = ("random network", "predicted ms", "measured ms", "equal", "trained")
    return Table(head, rows, note)


def _arms_table(trained: Record) -> Table:
    rows = [
        (arm["name"], arm["how"], str(arm["seed"]), arm["digest"][:8],
         "supernet" if arm["inherits"] else "scratch", _score(arm), f"{arm['miou']:.2f}")
        for arm in trained["arms"]
    ]  # fmt: skip
    head = (
        "network", "from", "seed", "digest", "began with", "supernet's score %",
        f"mIoU % on {trained['judged_on']}",
    )  # fmt: skip
    note = f"All {trained['pictures']} pictures, whole; the same recipe for all."
    told = trained.get("fidelity", {})
    if told.get("tau") is not None:
        note += (
            f" The supernet orders {told['networks']} of them as training does with Kendall's "
            f"tau {told['tau']:.2f} (1: the same order, -1: the reverse)."
        )
    return Table(head, rows, note)


def _score(arm: Record) -> str:
    score = arm.get("supernet_miou")
    return "-" if score is None else f"{score:.2f}"


def _differences_table(differences: Sequence[Record]) -> Table:
    rows = [
        (f"{one['of']} - {one['to']}", f"{one['mean']:+.2f}",
         f"{one['low']:+.2f} to {one['high']:+.2f}",
         " and ".join(map(str, one["trainings"])))
        for one in differences
    ]  # fmt: skip
    note = (
        "Printed whether or not it is positive. An interval that holds 0 shows no difference. It "
        "is over pictures and the trainings there are: with one of each, other seeds are not in it."
    )
    return Table(("difference", "points of mIoU", "95 % interval", "trainings"), rows, note)
