"""What `ship_model.py` and `train_more.py` share: a trained model is staged, scored and put in place.

A kill at any moment leaves the zoo as it was, or leaves a complete stage whose `ready.json` says so;
whoever comes next (`finish`) copies the rest of it. Scores are kept in the stage as they come, so
that no split is evaluated twice for one model; a score on the test split is in the shipped log
before anything else is done with it.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import model_card

import fasterseg
from fasterseg.bench.accuracy import score
from fasterseg.cache import make_folder, write_atomic
from fasterseg.datasets import dataset, spaced
from fasterseg.deploy.calibrate import calibrate, store_ranges
from fasterseg.errors import ConfigError
from fasterseg.graph.ranges import SUFFIX
from fasterseg.runtime import model as models
from fasterseg.runtime.select import EngineRequest, open_engine
from fasterseg.types import Size

ROOT: Final = Path(__file__).resolve().parents[1]
NAME: Final = "fasterseg-camvid"
MOST_VERSIONS: Final = 3
"""Weight files that may ever be committed: each stays in the history for good."""

ENGINES: Final = (
    ("onnxruntime", "fp32"), ("onnxruntime", "fp16"), ("onnxruntime", "int8"), ("torch", "fp32"),
)  # fmt: skip
CALIBRATION_FRAMES: Final = 64
"""Training pictures, evenly spaced, on which the ranges for int8 are measured."""

SIZE: Final = Size(360, 480)

Row = dict[str, Any]


def note(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


@dataclass(frozen=True)
class Shop:
    """Where things lie.

    Attributes:
        zoo: folder of the shipped models.
        work: folder of what is not finished; git ignores it.
        size: height and width that engines are scored at.
    """

    zoo: Path = field(default_factory=lambda: models.ZOO)
    work: Path = ROOT / ".train-more"
    size: Size = SIZE

    def file(self, suffix: str) -> Path:
        """A file of the shipped model."""
        return self.zoo / f"{NAME}{suffix}"

    @property
    def stage(self) -> Path:
        """Where the next version is put together."""
        return self.work / "stage"


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def write_json(path: Path, value: Any) -> None:
    write_atomic(path, (json.dumps(value, indent=1) + "\n").encode())


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def today() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def evaluate(
    shop: Shop, model: str, root: Path, split: Any, engine: str = "onnxruntime",
    precision: str = "fp32",
) -> Row:  # fmt: skip
    """Score a model (a name or a card) on the CPU."""
    request = EngineRequest(
        model=model, engine=engine, precision=precision, device="cpu", size=shop.size
    )
    spec = dataset("camvid")
    opened = open_engine(request, shop.size, note)
    try:
        report = score(opened, spec, split, spec.pairs(root, split))
    finally:
        opened.close()
    return {**report.to_json(), "fasterseg": fasterseg.__version__, "evaluated": today()}


def stage_model(shop: Shop, run: Path, root: Path) -> Path:
    """Copy the model of a run into the stage, with ranges, as it will ship; returns its card."""
    card = read_json(run / models.CARD)
    data = (run / card["weights"]).read_bytes()
    held = shop.stage / models.WEIGHTS
    if held.exists() and held.read_bytes() != data:
        shutil.rmtree(shop.stage)
    write_atomic(make_folder(shop.stage) / models.WEIGHTS, data)
    path = shop.stage / models.CARD
    card |= {"name": NAME, "weights": models.WEIGHTS}
    write_json(path, {**card, "ranges": models.RANGES} if _has_ranges(shop) else card)
    if not _has_ranges(shop):
        note(f"measuring the ranges for int8 on {CALIBRATION_FRAMES} training pictures")
        spec = dataset("camvid")
        pairs = spaced(spec.pairs(root, "train"), CALIBRATION_FRAMES)
        frames = (spec.read_image(pair) for pair in pairs)
        staged = models.resolve_model(str(path))
        source = "CamVid train, evenly spaced"
        store_ranges(staged, calibrate(staged, frames, source=source, size=shop.size))
    return path


def _has_ranges(shop: Shop) -> bool:
    return (shop.stage / models.RANGES).exists()


def evaluations(shop: Shop, card: Path, root: Path, split: str) -> list[Row]:
    """Score the staged model in every way; what was scored before is not again."""
    kept = shop.stage / f"{split}.json"
    rows: list[Row] = read_json(kept) if kept.exists() else []
    done = {(row["engine"], row["precision"]) for row in rows}
    for engine, precision in ENGINES:
        if (engine, precision) in done:
            continue
        rows.append(evaluate(shop, str(card), root, split, engine, precision))
        if split == "test":
            _log_test(shop, rows[-1])
        write_json(kept, rows)
    return rows


def _log_test(shop: Shop, row: Row) -> None:
    """Note an evaluation on the test split in what ships now, whatever becomes of its model."""
    keys = ("evaluated", "source_sha256", "engine", "precision", "miou")
    record = read_record(shop)
    record["test_log"].append({key: row[key] for key in keys})
    write_json(shop.file(".record.json"), record)
    if "runs" in record:
        write_atomic(shop.file(".md"), model_card.render(NAME, record).encode())


def read_record(shop: Shop) -> Row:
    """The record of what ships, in today's form; an empty one where nothing ships yet."""
    path = shop.file(".record.json")
    record: Row = read_json(path) if path.exists() else {"test_log": []}
    if "training" in record:
        run = {"training": record.pop("training")}
        run |= {key: record.pop(key) for key in ("curve", "changes")}
        record["runs"] = [run]
    return record


def run_facts(run: Path) -> Row:
    """What the record keeps of a run: its settings, val scores and changes on the way."""
    log = read_log(run)
    curve = [
        {"step": row["step"], "images": row["images"], "val_miou": row["val"]["miou"]}
        for row in log
        if "val" in row
    ]
    changes = [row for row in log if "note" in row]
    return {
        "training": read_json(run / models.CARD)["training"], "curve": curve, "changes": changes
    }  # fmt: skip


def read_log(run: Path) -> list[Row]:
    path = run / "log.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("}")]


def prepare(shop: Shop, run: Path, root: Path, earlier: list[Row], training: Row) -> None:
    """Put everything that is to ship into the stage, and mark it as ready.

    Args:
        shop: where.
        run: output folder of the training.
        root: folder of CamVid.
        earlier: `run_facts` of the runs that this one went on from.
        training: content of the training file, except the hash.
    """
    card = stage_model(shop, run, root)
    staged = {models.WEIGHTS: shop.file(".safetensors"), models.RANGES: shop.file(SUFFIX)}
    weights_sha256 = sha256(shop.stage / models.WEIGHTS)
    record = {
        "sha256": weights_sha256,
        "runs": [*earlier, run_facts(run)],
        "val": evaluations(shop, card, root, "val"),
        "test": evaluations(shop, card, root, "test"),
        # Read last: the line above has written to it.
        "test_log": read_record(shop)["test_log"],
    }
    if draw_curves(shop.stage / "curves.png", run, earlier):
        record["curves"] = shop.file(".curves.png").name
        staged["curves.png"] = shop.file(".curves.png")
    index = json.dumps(_index(shop, weights_sha256, record["runs"]), indent=2) + "\n"
    write_atomic(shop.stage / "index.json", index.encode())
    write_json(shop.stage / "record.json", record)
    write_atomic(shop.stage / "card.md", model_card.render(NAME, record).encode())
    write_json(shop.stage / "training.json", {**training, "sha256": weights_sha256})
    staged |= {
        "index.json": shop.zoo / "index.json",
        "record.json": shop.file(".record.json"),
        # After the weights: a card must not promise what is not there.
        "card.md": shop.file(".md"),
        "training.json": shop.file(".training.json"),
    }
    write_json(shop.stage / "ready.json", {name: path.name for name, path in staged.items()})


def _index(shop: Shop, weights_sha256: str, runs: Iterable[Row]) -> Row:
    index: Row = read_json(shop.zoo / "index.json")
    index["models"][NAME] |= {
        "weights": shop.file(".safetensors").name,
        "sha256": weights_sha256,
        "ranges": shop.file(SUFFIX).name,
        "licence": "MIT (code, architecture); weights non-commercial (terms of CamVid)",
        "about": f"FasterSeg student for the 11 CamVid classes, {model_card.origin(runs)}",
    }
    return index


def finish(shop: Shop) -> bool:
    """Put a stage that is ready in place, whoever made it; whether there was one."""
    ready = shop.stage / "ready.json"
    if not ready.exists():
        return False
    placed = read_json(ready)
    for name, target in placed.items():
        write_atomic(shop.zoo / target, (shop.stage / name).read_bytes())
    if shop.file(".curves.png").name not in placed.values():
        # Those of the version before would be taken for this one's.
        shop.file(".curves.png").unlink(missing_ok=True)
    ready.unlink()
    shutil.rmtree(shop.stage)
    return True


def draw_curves(path: Path, run: Path, earlier: Iterable[Row]) -> bool:
    """The curves of a run after the scores of those before it; False without matplotlib."""
    if importlib.util.find_spec("matplotlib") is None:
        note("no picture of the curves: matplotlib is not installed")
        return False
    from fasterseg.plots import curves

    records: list[Row] = []
    step = images = 0
    for facts in earlier:
        records += [
            {
                "step": step + at["step"],
                "images": images + at["images"],
                "val": {"miou": at["val_miou"]},
            }
            for at in facts["curve"]
        ]
        step, images = step + facts["training"]["step"], images + facts["training"]["images"]
    for row in read_log(run):
        moved = {"step": step + row["step"]}
        records.append(
            row | moved | ({"images": images + row["images"]} if "images" in row else {})
        )
    curves(path, records, f"{NAME}: training on CamVid")
    return True


def first_training(run_training: Mapping[str, Any], chunk: Row) -> Row:
    """Content of the training file after a run that started anew."""
    settings = run_training["settings"]
    return {
        "schema": 1,
        "seed": settings["seed"],
        "images": run_training["images"],
        "settings": settings,
        "chunks": [chunk],
    }


def read_training(shop: Shop) -> Row:
    """The training file; made up from the record where a version shipped without one.

    Raises:
        ConfigError: it is not of the weights that ship.
    """
    path = shop.file(".training.json")
    shipped = sha256(shop.file(".safetensors"))
    if path.exists():
        training: Row = read_json(path)
    else:
        record = read_record(shop)
        first = record["runs"][0]["training"]
        chunk = {"images": first["images"], "lr": first["settings"]["optimizer"]["lr"]}
        val = next(row["miou"] for row in record["val"] if row["precision"] == "fp32")
        chunk |= {"val_before": None, "val_after": val, "kept": True}
        training = first_training(first, chunk) | {"sha256": record["sha256"]}
    if training["sha256"] != shipped:
        raise ConfigError(
            f"{path} is of weights {training['sha256'][:12]}, but {shipped[:12]} ship. Take both "
            "files from one commit"
        )
    return training


def warn_of_versions(shop: Shop, say: Callable[[str], None] = note) -> None:
    """Remind of how many weight files the history holds already."""
    command = ["git", "log", "--format=%h", "--", str(shop.file(".safetensors"))]
    found = subprocess.run(command, cwd=shop.zoo, capture_output=True, text=True, check=False)
    count = len(found.stdout.split())
    say(
        f"{count} of at most {MOST_VERSIONS} versions of the weights are committed"
        + (". COMMIT NO MORE: keep these in the working tree" if count >= MOST_VERSIONS else "")
        + ("; this would be the last" if count == MOST_VERSIONS - 1 else "")
    )
