"""The folder of a run as `fasterseg-search run` leaves it, with figures that are made up.

Everything follows from one seed. Tests compare a report with the values that are returned here.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import random
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from fasterseg.arch.genotype import Genotype
from fasterseg.arch.plan import plan
from fasterseg.arch.space import SearchSpace
from fasterseg.bench.calibrate import judge
from fasterseg.bench.draw import draw
from fasterseg.bench.nominal import nominal_table
from fasterseg.bench.tables import STATISTICS, TableFile
from fasterseg.retarget.measured import Measured
from fasterseg.search.pareto import Scored, best_first, pareto
from fasterseg.types import DeviceInfo, Size

SIZE = Size(64, 128)
SPACE = SearchSpace(
    layers=5, ops=("skip", "conv", "conv_2x", "conv_2x_downup"), widths=(4, 8, 12), num_classes=11
)
DEVICE = DeviceInfo(
    id="box-2c",
    name="Box",
    arch="x86_64",
    driver=None,
    cuda=None,
    os="Linux",
    runtimes={"onnxruntime": "1.31.1", "numpy": "2.4.6"},
    details={"cpu": {"cores_usable": 2}},
)


@dataclass(frozen=True)
class Made:
    """What was written."""

    folder: Path
    table: TableFile
    scored: list[Scored]
    measured: dict[str, Measured]
    search: dict[str, Any]
    stages: dict[str, Any]
    trained: dict[str, Any]


def write_run(folder: Path, *, nominal: bool = False, gain: float = 0.02, name: str = "") -> Made:
    """Write the folder of a finished run of method evolve with two targets.

    Args:
        folder: where.
        nominal: whether latencies are those of the formula.
        gain: how much better evolved networks score than random ones.
        name: goes into whatever people can name.
    """
    chance = random.Random(5)
    table = dataclasses.replace(copy.deepcopy(_table(nominal)), path=folder / "table.json")
    table.save()
    nets = _networks()
    price = [table.table().price(plan(net, SIZE)).ms for net in nets]
    ordered = [net for _, net in sorted(zip(price, nets, strict=True), key=lambda pair: pair[0])]
    targets = sorted(price)[17] * 1.01, sorted(price)[29] * 1.01
    scored = _scored(table, ordered, targets, chance, gain)
    lines = [json.dumps({**one.to_json(), "supernet": "abc"}) for one in scored]
    # A kill cut the last line short.
    (folder / "search").mkdir(parents=True)
    (folder / "search/scored.jsonl").write_text("\n".join(lines) + '\n{"digest": "')
    measured = _measured(table, scored, chance)
    entries = {digest: one.to_json() for digest, one in measured.items()}
    _json(folder / "search/measured.json", entries)
    search = _search(folder, scored, measured, targets)
    stages = _stages()
    _json(folder / "stages.json", stages)
    settings = {
        "dataset": f"camvid{name}", "size": str(SIZE), "method": "evolve", "seed": 1,
        "targets_ms": targets,
    }  # fmt: skip
    _json(folder / "settings.json", settings)
    trained = _trainings(folder, search, ordered, chance, name)
    (folder / "export").mkdir()
    (folder / "export/searched.onnx").write_bytes(b"onnx" * 300)
    return Made(folder, table, scored, measured, search, stages, trained)


def write_cosearch(folder: Path, entropy: float) -> list[dict[str, Any]]:
    """Write what method fasterseg leaves; returns the records of its epochs."""
    _json(folder / "settings.json", {"dataset": "camvid", "size": "64x128", "method": "fasterseg"})
    epochs = []
    for epoch in range(5):
        share = epoch / 4
        epochs.append(
            {
                "step": 10 * epoch,
                "epoch": epoch,
                "entropy": {"student": 1 - share * (1 - entropy), "teacher": 1 - 0.5 * share},
                "margin": {"student": 0.4 * share, "teacher": 0.6 * share},
                "groups": {
                    "student.alpha": {"entropy": 1 - share * (1 - entropy), "margin": 0.4 * share}
                },
                "latency_ms": 9.0 - share,
            }
        )
    lines = [{"step": 5, "total": 2.5, "images": 10}, *epochs]
    (folder / "cosearch").mkdir(parents=True)
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "cosearch/log.jsonl").write_text(text)
    return epochs


def _json(path: Path, data: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data, indent=1))


@cache
def _networks() -> list[Genotype]:
    return list(draw(SPACE, SIZE, 7, 1, 36).held_out)


@cache
def _table(nominal: bool) -> TableFile:
    chance = random.Random(6)
    file = nominal_table(SPACE, SIZE, Path())
    if nominal:
        return file
    drawn = draw(SPACE, SIZE, 3, 8, 12)
    file = dataclasses.replace(
        file,
        device=DEVICE,
        backend="onnxruntime",
        conditions={"device": "cpu", "threads": 1, "tail": "graph"},
        draw=drawn.to_json(),
        measured_on="2026-11-22T20:06:19+00:00",
        runs=[{"what": "rows", "begun": "2026-11-22T19:59:10+00:00", "load_average": 0.4}],
    )
    for net in (*drawn.calibration, *drawn.held_out):
        ms = 0.9 * file.table().price(plan(net, SIZE)).ms + 0.1
        file.nets[net.digest()] = [_times(ms * chance.gauss(1, 0.02)) for _ in range(2)]
    judge(file, drawn)
    return file


def _times(ms: float) -> dict[str, float]:
    return {f"{statistic}_ms": round(ms, 4) for statistic in STATISTICS}


def _scored(
    table: TableFile, nets: list[Genotype], targets: tuple[float, ...], chance: random.Random,
    gain: float,
) -> list[Scored]:  # fmt: skip
    found = []
    luck = {net.digest(): chance.gauss(0, 0.01) for net in nets}
    for target in targets:
        for index, net in enumerate(nets):
            ms = table.table().price(plan(net, SIZE)).ms
            if ms > target:
                continue
            how = ("evolve", "random", "evolve", "random", "hand")[index % 5]
            worth = 0.25 + 0.01 * ms + luck[net.digest()]
            worth += gain if how == "evolve" else 0.0
            found.append(
                Scored(net, net.digest(), ms, round(worth, 5), how, index // 8, target)  # type: ignore[arg-type]
            )
    return found


def _measured(table: TableFile, scored: list[Scored], chance: random.Random) -> dict[str, Measured]:
    return {
        one.digest: Measured(
            one.genotype,
            one.ms,
            tuple(_times(one.ms * chance.gauss(0.99, 0.01)) for _ in range(2)),
            {"device": table.device.id},
        )
        for one in best_first(scored)[:8]
    }


def _search(
    folder: Path, scored: list[Scored], measured: dict[str, Measured], targets: tuple[float, ...]
) -> dict[str, Any]:
    results = []
    for number, target in enumerate(targets):
        ours = [one for one in scored if one.target_ms == target]
        candidates = [one for one in ours if one.digest in measured]
        chosen = best_first(candidates or ours)[0]
        file = "genotype.json" if number == 0 else f"genotype-{target:g}ms.json"
        _json(folder / file, chosen.genotype.to_json())
        known = measured.get(chosen.digest)
        results.append(
            {
                "target_ms": target,
                "chosen": chosen.digest,
                "predicted_ms": chosen.ms,
                "measured_ms": known.ms("p50") if known else 0.98 * chosen.ms,
                "miou": chosen.miou,
                "how": chosen.how,
                "evolve": _best(ours, "evolve"),
                "random": _best(ours, "random"),
                "hand": [
                    {"digest": one.digest, "ms": one.ms, "miou": one.miou}
                    for one in ours
                    if one.how == "hand"
                ],
                "file": file,
            }
        )
    front = [{"digest": one.digest, "ms": one.ms, "miou": one.miou} for one in pareto(scored)]
    search = {
        "method": "evolve", "statistic": "p50", "seed": 1, "targets": results, "pareto": front,
    }  # fmt: skip
    _json(folder / "search.json", search)
    return search


def _best(scored: list[Scored], how: str) -> dict[str, Any]:
    own = [one for one in scored if one.how == how]
    best = best_first(own)[0]
    return {"best_miou": best.miou, "best": best.digest, "evaluations": len(own), "note": ""}


def _stages() -> dict[str, Any]:
    seconds = {"measure": 431.5, "supernet": 5400.0, "search": 1210.25, "train": 7200.0}
    done = {
        name: {
            "key": "0", "inputs": {}, "begun": "2026-11-22T19:00:00+00:00", "seconds": value,
            "finished": "2026-11-22T21:00:00+00:00",
        }
        for name, value in seconds.items()
    }  # fmt: skip
    running = {"key": "0", "inputs": {}, "begun": "2026-11-22T22:00:00+00:00", "seconds": 3.0}
    return {**done, "export": {**running, "finished": None}}


def _trainings(
    folder: Path, search: dict[str, Any], nets: list[Genotype], chance: random.Random, name: str
) -> dict[str, Any]:
    first = search["targets"][0]
    entries = [
        {
            "digest": net.digest(),
            "predicted_ms": first["predicted_ms"] * 1.001,
            "measured_ms": first["measured_ms"] * (1.01 if number < 2 else 1.05),
            "genotype": net.to_json(),
        }
        for number, net in enumerate(nets[:3])
    ]
    # As fast, but more than were wanted.
    entries.append({**entries[1], "digest": "f" * 64})
    comparison = {
        "drawn": "2026-11-22T20:30:00+00:00", "seed": 1, "statistic": "p50", "tolerance": 0.02,
        "to": first["chosen"], "measured_ms": first["measured_ms"], "networks": entries[:2],
        "ruled_out": entries[2:],
    }  # fmt: skip
    _json(folder / "comparison.json", comparison)
    arms = []
    ways = (
        (f"searched{name}", "searched", first["chosen"]),
        ("random-1", "random", entries[0]["digest"]),
    )
    for arm, how, digest in ways:
        score = round(48 + chance.gauss(0, 2), 3)
        arms.append(
            {
                "name": arm, "how": how, "folder": f"train/{how}", "seed": 1,
                "digest": digest, "inherits": how == "searched", "miou": score,
                "supernet_miou": 31.5 if how == "searched" else None,
            }
        )  # fmt: skip
        log = [
            {"step": step, "images": 12 * step, "total": 3 - step / 50, "lr": 1e-3}
            for step in range(10, 60, 10)
        ]
        vals = [
            {"step": step, "images": 12 * step, "val": {"miou": score - 40 / step}}
            for step in (20, 50)
        ]
        _log(folder / "train" / how / "log.jsonl", [*log, *vals])
    supernet = [{"step": step, "images": 4 * step, "total": 4 / step} for step in range(5, 55, 5)]
    _log(folder / "supernet/log.jsonl", supernet)
    difference = {
        "of": "searched", "to": "all random", "mean": -0.62, "low": -1.91, "high": 0.7,
        "trainings": [1, 1],
    }  # fmt: skip
    trained = {
        "judged_on": "val", "pictures": 101, "arms": arms, "differences": [difference],
        "fidelity": {"networks": 4, "tau": 0.667},
    }  # fmt: skip
    _json(folder / "train.json", trained)
    return trained


def _log(path: Path, records: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
