"""Cases of what lies beside engines and data: settings, palettes, records, remembered facts."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from fasterseg.arch.latency import LatencyTable
from fasterseg.arch.plan import plan
from fasterseg.arch.space import SearchSpace
from fasterseg.bench.comparison import check_regression, compare
from fasterseg.bench.records import BenchRecord
from fasterseg.bench.scores import Score, paired
from fasterseg.bench.tables import TableFile
from fasterseg.cli.describe import read_verdict
from fasterseg.config import load_toml
from fasterseg.datasets.own import read_dataset
from fasterseg.deploy.classes import read_classes
from fasterseg.errors import MissingLatencyError, PerformanceError, UsageError
from fasterseg.graph.ranges import load_ranges
from fasterseg.labels import CAMVID
from fasterseg.palettes import read_palette
from fasterseg.retarget.measured import load_measured
from fasterseg.retarget.run_files import read_lines
from fasterseg.retarget.settings import load_run
from fasterseg.retarget.stage_context import read_json
from fasterseg.retarget.stages import Records
from fasterseg.runtime.choice import Choice, remembered
from fasterseg.search.cosettings import load_mixture
from fasterseg.search.journal import Journal
from fasterseg.search.ledger import Ledger
from fasterseg.search.settings import load_settings
from fasterseg.search.split import TrainSplit
from tests.shared import ROOT, zoo_genotype
from tests.slow.fuzz_case import Case, told
from tests.slow.mutate import dumped, mutate_bytes, mutate_json, mutate_text

DATA_TOML = """name = "yard"
size = "6x8"
root = "{root}"
classes = ["road", "car"]
palette = [[128, 64, 128], [0, 0, 142]]
unlisted = "ignore"
ignore = [255]
[train]
images = "images/*.png"
labels = "labels/*.png"
[val]
list = "val.txt"
[ids]
road = [0, 7]
car = 1
"""
COLOURS = {"a": [1, 2, 3], "b": [4, 5, 6]}


@dataclass(frozen=True)
class Sidecar:
    """A kind of file.

    Attributes:
        name: of the file in the case's folder.
        text: a good one's content.
        read: reads it as the programs do, and looks at what came out.
    """

    name: str
    text: str
    read: Callable[[Path], object]


@contextmanager
def sidecars() -> Iterator[Case]:
    """All of them, each as often as the others."""
    kinds = [*_of_users(), *_of_records(), *_of_runs()]

    def case(random: np.random.Generator, folder: Path) -> bool:
        kind = kinds[int(random.integers(len(kinds)))]
        path = folder / kind.name
        path.write_bytes(_mutated(kind, folder, random))
        kind.read(path)
        return True

    yield case


def _mutated(kind: Sidecar, folder: Path, random: np.random.Generator) -> bytes:
    text = kind.text.replace("{root}", str(folder / "data"))
    if random.random() < 0.1:
        return mutate_bytes(text.encode(), random, 1)
    match Path(kind.name).suffix:
        case ".json":
            return dumped(mutate_json(json.loads(text), random)).encode()
        case ".jsonl":
            lines = [dumped(mutate_json(json.loads(line), random)) for line in text.splitlines()]
            keep = [
                line if random.random() < 0.3 else old
                for line, old in zip(lines, text.splitlines(), strict=True)
            ]
            return ("\n".join(keep) + "\n").encode()
        case _:
            return mutate_text(text, random).encode(errors="replace")


def _of_users() -> Iterator[Sidecar]:
    """What users write, or calibrate."""
    camvid = CAMVID.to_json()
    csv = "class,r,g,b\n" + "".join(
        f"{name},{r},{g},{b}\n"
        for name, (r, g, b) in zip(CAMVID.classes, CAMVID.palette, strict=True)
    )
    toml = "\n".join(f"{name} = {list(colour)}" for name, colour in COLOURS.items())

    def paint(path: Path) -> object:
        return read_palette(str(path)).paint(CAMVID)

    def classes(path: Path) -> object:
        return read_classes(str(path)).to_json()

    for name, text in (
        ("p.json", dumped(camvid)),
        ("p.json", json.dumps(COLOURS)),
        ("p.csv", csv),
        ("p.toml", toml),
    ):
        yield Sidecar(name, text, paint)
        yield Sidecar(name.replace("p", "c", 1), text, classes)
    yield Sidecar("c.txt", "\n".join(CAMVID.classes), classes)
    yield Sidecar("data.toml", DATA_TOML, _data_set)
    yield Sidecar("data.toml", DATA_TOML, classes)
    ranges = ROOT / "fasterseg/zoo/fasterseg-camvid.ranges.json"
    yield Sidecar("x.ranges.json", _short(ranges, "values"), _ranges)


def _data_set(path: Path) -> None:
    root = path.parent / "data"
    for place in ("images", "labels"):
        (root / place).mkdir(parents=True)
        cv2.imwrite(
            str(root / place / "a.png"),
            np.zeros((6, 8, 3) if place == "images" else (6, 8), np.uint8),
        )
    (root / "val.txt").write_text("images/a.png labels/a.png\n")
    spec = read_dataset(path)
    for split in spec.splits:
        for pair in spec.pairs(spec.folder(None), split):
            spec.read_image(pair)
            spec.read_label(pair)


def _ranges(path: Path) -> None:
    ranges = load_ranges(path)
    ranges.check(list(ranges.values), ranges.weights_sha256)
    told(ranges.sha256, ranges.to_json())


def _verdict(path: Path) -> None:
    told(json.dumps(read_verdict(path)))


def _of_records() -> Iterator[Sidecar]:
    """What was measured, and is read again."""
    folder = ROOT / "benchmarks/results/amd-epyc-25-17-2c"
    for name in ("2026-11-22-engines.json", "2026-11-23-engines-7.json"):
        good = BenchRecord.load(folder / name)
        yield Sidecar("r.json", _short(folder / name, "cells", 3), partial(_record, good))
    table = next((ROOT / "benchmarks/tables/amd-epyc-25-17-2c").rglob("*.json"))
    yield Sidecar("t.json", _short(table, "rows", "nets"), _table)
    yield Sidecar("t.json", table.read_text(), _priced)
    score = {
        "model": "m", "engine": "onnxruntime", "precision": "fp32", "size": "64x96", "miou": 60.5,
        "dataset": "camvid", "split": "val",
    }  # fmt: skip
    yield Sidecar("s.json", json.dumps(score), lambda path: paired([], [Score.load(path)]))
    verdict = {"reference": "onnxruntime", "agreement": 0.9999, "threshold": 0.999, "passed": True}
    yield Sidecar("x.onnx.parity.json", json.dumps(verdict), _verdict)
    choice = Choice(
        "onnxruntime", {"onnxruntime": 5.5, "openvino": 6.5}, {"onnxruntime": 1.0}, {}, "2026-11-22"
    )
    yield Sidecar("auto.json", json.dumps(asdict(choice)), _choice)


def _record(good: BenchRecord, path: Path) -> None:
    record = BenchRecord.load(path)
    told(*(f"{cell.title} {cell.fps_host_to_labels} {cell.fps_model}" for cell in record.cells))
    written = record.to_json()
    assert BenchRecord.from_json(written, "again").to_json() == written
    for pair in ((good, record), (record, good)):
        try:
            check_regression(compare(*pair), 10)
        except PerformanceError:
            continue


def _table(path: Path) -> None:
    table = TableFile.load(path)
    told(table.table().rows, table.emit_options())
    for granularity in ("inside", "alone"):
        for statistic in table.statistics:
            table.times(granularity, statistic)


def _priced(path: Path) -> None:
    table = LatencyTable.load(path)
    try:
        price = table.price(plan(zoo_genotype("fasterseg-camvid"), table.size))
    except MissingLatencyError:
        return
    assert math.isfinite(price.ms)


def _choice(path: Path) -> None:
    """A damaged one is forgotten, never an error."""
    try:
        choice = remembered(path)
    except UsageError as error:
        raise AssertionError(f"what cannot be read must be measured again: {error}") from error
    if choice is not None:
        told(choice.why)


def _of_runs() -> Iterator[Sidecar]:
    """Settings and leavings of searches and trainings."""
    configs = ROOT / "fasterseg/search/configs"
    for name in ("camvid-student", "paper/student"):
        yield Sidecar(
            "x.toml", (configs / f"{name}.toml").read_text(), lambda p: load_settings(str(p)).steps
        )
    yield Sidecar(
        "x.toml", (configs / "paper/search.toml").read_text(), lambda p: load_mixture(str(p))
    )
    for file in sorted((configs / "retarget").glob("*.toml")):
        yield Sidecar("x.toml", file.read_text(), _run_settings)
    space = (
        'layers = 8\nops = ["skip", "conv"]\nwidths = [4, 8]\nstem_widths = [8]\nnum_classes = 11\n'
    )
    yield Sidecar("x.toml", space, lambda path: load_toml(path, SearchSpace))
    run = ROOT / "benchmarks/results/amd-epyc-25-17-2c/search-camvid-cpu"
    yield Sidecar("stages.json", (run / "stages.json").read_text(), _stages)
    yield Sidecar("measured.json", _short(run / "measured.json", ""), _measured)
    yield Sidecar(
        "split.json", _short(run / "split.json", ""), lambda p: TrainSplit.from_json(read_json(p))
    )
    scored = (run / "scored.jsonl").read_text().splitlines()[:3]
    key = json.loads(scored[0])["supernet"]
    yield Sidecar("scored.jsonl", "\n".join(scored), lambda path: Ledger(path, key).scored)
    yield Sidecar("scored.jsonl", "\n".join(scored), read_lines)
    log = "\n".join(json.dumps({"step": step, "loss": 1.0}) for step in (25, 50, 75))
    yield Sidecar("log.jsonl", log, _log)


def _run_settings(path: Path) -> None:
    settings = load_run(str(path))
    told(settings.to_json(), settings.targets(lambda model: 10.0))


def _stages(path: Path) -> None:
    records = Records.load(path.parent)
    told(*(records.done(name) for name in records.stages))


def _measured(path: Path) -> None:
    told(*(one.ms("p50") for one in load_measured(path).values()))


def _log(path: Path) -> None:
    journal = Journal(path.parent)
    journal.read()
    journal.trim(50)
    assert all(record["step"] <= 50 for record in journal.read())


def _short(file: Path, *long: str | int) -> str:
    """The file with the first few entries of its long parts, or of the whole of it."""
    tree: Any = json.loads(file.read_text())
    few = next((place for place in long if isinstance(place, int)), 12)
    if long == ("",):
        return dumped(_first(tree, 2))
    for key in long:
        if isinstance(key, str):
            tree[key] = _first(tree[key], few)
    return dumped(tree)


def _first(entries: Any, few: int) -> Any:
    if isinstance(entries, Mapping):
        return dict(list(entries.items())[:few])
    return entries[:few]
