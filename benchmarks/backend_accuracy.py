"""MIoU of one model in every CPU engine and precision, on the same pictures.

    python benchmarks/backend_accuracy.py --root CamVid [--split test] [-o record.json]

Nothing is chosen by it: it says what a change of engine, precision or tail costs.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Final, cast

from fasterseg.bench.accuracy import score
from fasterseg.bench.device import detect
from fasterseg.bench.records import current_commit, now
from fasterseg.cache import write_atomic
from fasterseg.datasets import Split, dataset
from fasterseg.runtime.select import EngineRequest, open_engine

ROWS: Final = (
    ("torch", "fp32", "auto"),
    ("onnxruntime", "fp32", "graph"),
    ("onnxruntime", "fp32", "native"),
    ("onnxruntime", "fp16", "native"),
    ("onnxruntime", "int8", "native"),
    ("openvino", "fp32", "native"),
    ("openvino", "bf16", "native"),
    ("openvino", "int8", "native"),
)
"""Engine, precision, tail; the first is the reference."""

LIMITS: Final = {"fp32": 0.1, "fp16": 0.1, "bf16": 0.1, "int8": 1.0}
"""Points of mIoU that a precision may cost."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Score every row; exit code 5 where one costs too much."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", default="fasterseg-camvid")
    parser.add_argument("--dataset", default="camvid")
    parser.add_argument("--root", type=Path, required=True, help="folder of the data set")
    parser.add_argument("--split", default="test", choices=("train", "val", "test"))
    parser.add_argument("--limit", type=int, help="only the first so many pictures")
    parser.add_argument("-o", "--output", type=Path, help="write the record here")
    given = parser.parse_args(arguments)
    spec = dataset(given.dataset)
    split = cast("Split", given.split)
    pairs = spec.pairs(spec.folder(given.root), split)[: given.limit]
    rows: list[dict[str, Any]] = []
    for engine, precision, tail in ROWS:
        request = EngineRequest(
            model=given.model, engine=engine, precision=precision, device="cpu", tail=tail
        )
        with closing(open_engine(request, spec.native_size, lambda _: None)) as opened:
            found = score(opened, spec, split, pairs).to_json()
            row = {"engine": engine, "precision": precision, "tail": opened.tail}
        rows.append({**row, "miou": found["miou"], "pixel_accuracy": found["pixel_accuracy"]})
        rows[-1]["difference"] = round(rows[-1]["miou"] - rows[0]["miou"], 3)
        print(
            f"{engine:12s} {precision:5s} tail {opened.tail:14s} {rows[-1]['miou']:6.2f} % mIoU  "
            f"{rows[-1]['difference']:+.2f}",
            flush=True,
        )
    if given.output:
        record = {
            "made": now(),
            "commit": current_commit(),
            "device": detect(["onnxruntime", "openvino", "torch"]).to_json(),
            "model": given.model,
            "dataset": spec.name,
            "split": split,
            "pictures": len(pairs),
            "rows": rows,
        }
        write_atomic(given.output, (json.dumps(record, indent=1) + "\n").encode())
    return 5 if any(-row["difference"] > LIMITS[row["precision"]] for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
