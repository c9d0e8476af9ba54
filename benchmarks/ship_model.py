"""Put a trained model into the zoo: weights, record of its making and scores, model card.

    python benchmarks/ship_model.py RUN --root CAMVID     # evaluate on val, then once on test, write
    python benchmarks/ship_model.py --render              # the card again from its record
    python benchmarks/ship_model.py --check               # is the card what its record says?

RUN is the output folder of `fasterseg-search train`, of a training that started anew; what goes on
from shipped weights is shipped by `train_more.py`. Every evaluation on the test split is appended
to the record, so that nobody can test twice unseen.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import model_card
from shipping import (
    NAME,
    Shop,
    evaluations,
    finish,
    first_training,
    note,
    prepare,
    read_json,
    read_record,
    stage_model,
    today,
    warn_of_versions,
)

from fasterseg.bench.records import current_commit
from fasterseg.cache import write_atomic


def ship(shop: Shop, run: Path, root: Path) -> None:
    """Ship the model of a run that started anew."""
    if finish(shop):
        note("put in place what an interrupted command had prepared")
    training = read_json(run / "model.json")["training"]
    val = evaluations(shop, stage_model(shop, run, root), root, "val")
    chunk = {
        "images": training["images"],
        "lr": training["settings"]["optimizer"]["lr"],
        "val_before": None,
        "val_after": val[0]["miou"],
        "kept": True,
        "date": today(),
        "commit": current_commit(),
    }
    prepare(shop, run, root, [], first_training(training, chunk))
    finish(shop)
    warn_of_versions(shop)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("run", type=Path, nargs="?", help="output folder of the training")
    parser.add_argument("--root", type=Path, help="folder of CamVid")
    parser.add_argument("--render", action="store_true", help="write the card from its record")
    parser.add_argument(
        "--check", action="store_true", help="fail where the card is not its record"
    )
    arguments = parser.parse_args()
    shop = Shop()
    card = shop.file(".md")
    if arguments.run is not None and arguments.root is not None:
        ship(shop, arguments.run, arguments.root)
    elif arguments.render or arguments.check:
        text = model_card.render(NAME, read_record(shop))
        if arguments.check and card.read_text() != text:
            sys.exit(f"{card.name} is not what its record says; run with --render")
        if arguments.render:
            write_atomic(card, text.encode())
    else:
        parser.error("give RUN and --root, --render or --check")


if __name__ == "__main__":
    main()
