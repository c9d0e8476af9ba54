"""Go on training the shipped model for a while; keep the result only if it is better on val.

    python benchmarks/train_more.py --root CAMVID --minutes 60      # or: make train-more MINUTES=60

One chunk starts from the shipped weights (fp16, averaged; the optimiser's state does not ship) and
ends with a learning rate near zero. How many crops it has is settled at its start, from the speed
measured then; a chunk that was stopped or killed goes on with the same command, whatever MINUTES
says. Its peak learning rate follows from the crops that the weights have seen (`peak_rate`).

At its end both models are scored on all val frames, as they would ship. A gain replaces the files
of the zoo and is tested once per precision; otherwise the zoo stays as it is and the attempt is
noted in the training file.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import io
import json
import math
import os
import re
import shutil
import sys
from pathlib import Path
from typing import Any, Final

from shipping import (
    NAME,
    Row,
    Shop,
    evaluate,
    finish,
    note,
    prepare,
    read_json,
    read_record,
    read_training,
    today,
    warn_of_versions,
    write_json,
)

from fasterseg import interrupts
from fasterseg.bench.records import current_commit
from fasterseg.cache import locked, make_folder, write_atomic
from fasterseg.cli.options import exit_code_of
from fasterseg.cli.search import app
from fasterseg.config import from_mapping
from fasterseg.errors import ConfigError, FastersegError
from fasterseg.search.settings import TrainSettings

WARMUP: Final = 0.05
"""Share of a chunk in which the optimiser finds its moments again."""

SCALE: Final = 50_000
"""Crops after which the peak rate begins to fall."""


def peak_rate(lr: float, seen: int, images: int) -> float:
    """Learning rate at the top of a chunk.

    It falls with the square root of the crops that the weights have seen, as schedules without an
    end do, and once more for chunks that are short against that: they have no time to settle.

    Args:
        lr: peak of the training from scratch.
        seen: crops behind the weights.
        images: crops of the chunk.
    """
    return lr / math.sqrt(1 + seen / SCALE) * min(1.0, math.sqrt(images / max(1, seen)))


def chunk_settings(training: Row, images: int) -> TrainSettings:
    """The recipe of the shipped weights, stretched over a chunk."""
    recipe = from_mapping(training["settings"], TrainSettings, "the training file")
    optimizer = dataclasses.replace(
        recipe.optimizer,
        lr=float(f"{peak_rate(recipe.optimizer.lr, training['images'], images):.4g}"),
        warmup=WARMUP,
    )
    # Another seed each time, or every chunk would begin with the same crops.
    seed = training["seed"] + len(training["chunks"])
    return dataclasses.replace(recipe, images=images, seed=seed, optimizer=optimizer)


def to_toml(table: dict[str, Any], name: str = "") -> str:
    """TOML of a table of numbers, texts, lists and tables of these."""
    plain = {key: value for key, value in table.items() if not isinstance(value, dict)}
    lines = [f"[{name}]"] if name else []
    lines += [f"{key} = {json.dumps(value)}" for key, value in plain.items()]
    inner = [to_toml(v, key) for key, v in table.items() if isinstance(v, dict)]
    return "\n".join([*lines, "", *inner])


def command(settings: Path, root: Path, output: Path, *more: str) -> list[str]:
    """What is trained, as a user would type it after `fasterseg-search`."""
    return [
        "train", str(settings), "--data", str(root), "--output", str(output), "--init", NAME, *more
    ]  # fmt: skip


def train(arguments: list[str]) -> None:
    """Run `fasterseg-search`, in this process: a kill must not leave one behind that trains on.

    Raises:
        SystemExit: it failed or was asked to stop, and has said so.
    """
    code = exit_code_of(app, arguments)
    if code:
        raise SystemExit(code)


def measured_rate(shop: Shop, training: Row, root: Path, more: tuple[str, ...]) -> float:
    """Crops per second on this machine as it is now."""
    trial = shop.work / "trial.toml"
    settings = chunk_settings(training, 1000)
    write_atomic(trial, to_toml(settings.to_json()).encode())
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        train(command(trial, root, shop.work / "trial", "--dry-run", *more))
    trial.unlink()
    found = re.search(r"\(([\d.]+) images/s\)", said.getvalue())
    assert found is not None, said.getvalue()
    return float(found[1])


def begin(shop: Shop, training: Row, root: Path, minutes: float, more: tuple[str, ...]) -> Row:
    """Settle what a chunk is; from here on it is the same whatever happens."""
    rate = measured_rate(shop, training, root, more)
    batch = training["settings"]["batch"]
    images = batch * max(1, round(rate * 60 * minutes / batch))
    settings = chunk_settings(training, images)
    chunk = {
        "number": len(training["chunks"]),
        "start_sha256": training["sha256"],
        "images": images,
        "lr": settings.optimizer.lr,
        "seed": settings.seed,
        "commit": current_commit(),
    }
    make_folder(shop.work / "chunk")
    write_atomic(shop.work / "chunk.toml", to_toml(settings.to_json()).encode())
    # Last: a chunk without this file does not exist.
    write_json(shop.work / "chunk.json", chunk)
    note(f"new chunk: {images} crops ({rate:.1f} per second), peak rate {chunk['lr']:g}")
    return chunk


def current_chunk(shop: Shop, training: Row) -> Row | None:
    """The chunk that was begun and not yet judged.

    Raises:
        ConfigError: it started from other weights than those that ship now.
    """
    path = shop.work / "chunk.json"
    if not path.exists():
        return None
    chunk: Row = read_json(path)
    if chunk["number"] < len(training["chunks"]) and _is_judged(chunk, training):
        drop(shop)
        return None
    if chunk["start_sha256"] != training["sha256"]:
        raise ConfigError(
            f"the chunk in {shop.work} started from weights {chunk['start_sha256'][:12]}, but "
            f"{training['sha256'][:12]} ship now. Start another one: rm -r {shop.work}"
        )
    return chunk


def _is_judged(chunk: Row, training: Row) -> bool:
    """Whether the training file has this chunk: a kill came between noting and dropping it."""
    return bool(training["chunks"][chunk["number"]].get("seed") == chunk["seed"])


def drop(shop: Shop) -> None:
    """Remove a chunk that has been judged."""
    # First: see `begin`.
    (shop.work / "chunk.json").unlink(missing_ok=True)
    (shop.work / "chunk.toml").unlink(missing_ok=True)
    shutil.rmtree(shop.work / "chunk", ignore_errors=True)


def judge(shop: Shop, training: Row, chunk: Row, root: Path) -> bool:
    """Score the chunk against what ships, on val; replace that or note the attempt."""
    run = shop.work / "chunk"
    before = evaluate(shop, NAME, root, "val")["miou"]
    after = evaluate(shop, str(run / "model.json"), root, "val")["miou"]
    kept = bool(after > before)
    row = {key: chunk[key] for key in ("images", "lr", "seed", "commit")}
    row |= {"val_before": before, "val_after": after, "kept": kept, "date": today()}
    training = {**training, "chunks": [*training["chunks"], row]}
    note(f"val mIoU {before:.3f} -> {after:.3f} %: {'kept' if kept else 'not kept'}")
    if kept:
        training["images"] += chunk["images"]
        prepare(shop, run, root, read_record(shop)["runs"], training)
        finish(shop)
        warn_of_versions(shop)
    else:
        write_json(shop.file(".training.json"), training)
    drop(shop)
    return kept


def train_more(shop: Shop, root: Path, minutes: float, more: tuple[str, ...] = ()) -> bool:
    """Begin a chunk or go on with one, and judge it; whether it was kept.

    Args:
        shop: where things lie.
        root: folder of CamVid.
        minutes: about how long a new chunk trains.
        more: further options of `fasterseg-search train`.
    """
    if finish(shop):
        note("put in place what an interrupted command had prepared")
    training = read_training(shop)
    chunk = current_chunk(shop, training)
    if chunk is None:
        chunk = begin(shop, training, root, minutes, more)
    else:
        note(f"going on with the chunk of {chunk['images']} crops that was begun before")
    run = shop.work / "chunk"
    train(command(shop.work / "chunk.toml", root, run, *more))
    return judge(shop, training, chunk, root)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--root", type=Path, required=True, help="folder of CamVid")
    parser.add_argument("--minutes", type=float, default=60.0, help="of a new chunk (60)")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    arguments = parser.parse_args()
    if not (arguments.root / "train.txt").is_file():
        parser.error(f"{arguments.root} is not CamVid: it has no train.txt")
    if arguments.minutes <= 0:
        parser.error("--minutes must be above 0")
    os.nice(19)
    more = ("--device", arguments.device, *(("--polite",) if sys.platform == "linux" else ()))
    shop = Shop()
    warn_of_versions(shop)
    interrupts.install()
    try:
        with locked(make_folder(shop.work) / "train-more", timeout_s=1.0):
            train_more(shop, arguments.root, arguments.minutes, more)
    except FastersegError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        note("stopped; the same command goes on")
        sys.exit(interrupts.INTERRUPTED)


if __name__ == "__main__":
    main()
