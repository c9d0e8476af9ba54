"""Feed mutated files to everything that reads files; run as `python -m tests.slow.fuzz`.

Prints one JSON object: cases, how many got past the header, and every outcome that is neither a
result nor an error of ours. Runs in a process of its own, so that a crash of a decoder is seen as
what it is.
"""

from __future__ import annotations

import argparse
import faulthandler
import io
import json
import tempfile
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import onnx

from fasterseg.arch.latency import LatencyTable
from fasterseg.deploy.recipe import load_recipe
from fasterseg.errors import FastersegError
from fasterseg.graph.emit import EmitOptions
from fasterseg.graph.weights import load_weights, save_weights, seeded_weights
from fasterseg.runtime.base import EngineSpec
from fasterseg.runtime.model import resolve_model
from fasterseg.runtime.onnxrt import OnnxRuntimeEngine
from fasterseg.runtime.store import describe, onnx_bytes
from fasterseg.stream.sources import open_source
from fasterseg.types import Size
from tests.parity import small_plan, street_like
from tests.shared import ROOT
from tests.slow.mutate import (
    mutate_bytes,
    mutate_json,
    mutate_model,
    mutate_png,
    mutate_safetensors,
    mutate_text,
    overwrite_bytes,
)

SIZE = Size(64, 96)
MOVIE = Size(128, 192)
CASE_TIMEOUT_S = 60


@dataclass
class Report:
    """What a run found."""

    cases: int = 0
    past_header: int = 0
    refused: int = 0
    faults: list[str] = field(default_factory=list)


def picture(suffix: str) -> bytes:
    encoded = cv2.imencode(suffix, street_like(SIZE)[0])[1]
    return encoded.tobytes()


def movie(format_name: str) -> bytes:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=format_name) as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = MOVIE.width, MOVIE.height, "yuv420p"
        for index in range(12):
            image = street_like(MOVIE, index)[0]
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="bgr24")))
        container.mux(stream.encode(None))
    return buffer.getvalue()


def read_media(path: Path) -> bool:
    """Whether any frame came out."""
    source = open_source(str(path))
    try:
        return sum(frame.image.size > 0 for frame in source) > 0
    finally:
        source.close()


def read_engine(path: Path) -> bool:
    engine = OnnxRuntimeEngine.open(path, "cpu", threads=1)
    spec = engine.spec
    if spec.size is not None and spec.size.pixels <= 1 << 20 and spec.batch in (1, None):
        engine.run(np.zeros((1, *spec.size, 3), np.uint8))
    engine.close()
    return True


Case = Callable[[np.random.Generator, Path], bool]


def media(suffix: str, data: bytes, header: int) -> Case:
    def case(random: np.random.Generator, folder: Path) -> bool:
        path = folder / f"x{suffix}"
        path.write_bytes(mutate_bytes(data, random, header))
        return read_media(path)

    return case


def mp4() -> Case:
    data = movie("mp4")

    def case(random: np.random.Generator, folder: Path) -> bool:
        path = folder / "x.mp4"
        mutate = overwrite_bytes if random.random() < 0.7 else mutate_bytes
        path.write_bytes(mutate(data, random, 48))
        return read_media(path)

    return case


def png() -> Case:
    data = picture(".png")

    def case(random: np.random.Generator, folder: Path) -> bool:
        path = folder / "x.png"
        path.write_bytes(mutate_png(data, random))
        return read_media(path)

    return case


def engines() -> Case:
    data = onnx_bytes(resolve_model("fasterseg-camvid"), SIZE, EmitOptions())
    model = onnx.load_from_string(data)

    def case(random: np.random.Generator, folder: Path) -> bool:
        path = folder / "x.onnx"
        structured = random.random() < 0.8
        path.write_bytes(
            mutate_model(model, random) if structured else mutate_bytes(data, random, 64)
        )
        read_engine(path)
        return True

    return case


def texts() -> Case:
    recipes = [p.read_text() for p in sorted((ROOT / "engines/recipes").glob("*.toml"))]

    def case(random: np.random.Generator, folder: Path) -> bool:
        path = folder / "x.toml"
        text = mutate_text(recipes[int(random.integers(len(recipes)))], random)
        path.write_text(text)
        recipe, _ = load_recipe(path)
        recipe.engine_sizes()
        return True

    return case


def trees() -> Case:
    table = next((ROOT / "benchmarks/tables").rglob("*.json"))
    table_tree = json.loads(table.read_text())
    table_tree["rows"] = dict(list(table_tree["rows"].items())[:12])
    spec = json.loads(describe(resolve_model("fasterseg-camvid"), SIZE, EmitOptions()).to_json())
    genotype = json.loads((ROOT / "fasterseg/zoo/fasterseg-camvid.json").read_text())
    card = {
        "schema": 1, "name": "x", "genotype": genotype, "labels": spec["labels"],
        "train_size": "360x480", "weights": "w.safetensors",
    }  # fmt: skip

    def case(random: np.random.Generator, folder: Path) -> bool:
        path = folder / "x.json"
        kind = int(random.integers(4))
        tree = mutate_json((table_tree, spec, genotype, card)[kind], random)
        path.write_text(json.dumps(tree))
        if kind == 0:
            LatencyTable.load(path)
        elif kind == 1:
            EngineSpec.from_json(path.read_text(), "x.json")
        else:
            resolve_model(str(path))
        return True

    return case


def weights() -> Case:
    plan = small_plan()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "w.safetensors"
        save_weights(file, seeded_weights(plan), np.float16)
        data = file.read_bytes()

    def case(random: np.random.Generator, folder: Path) -> bool:
        path = folder / "w.safetensors"
        path.write_bytes(mutate_safetensors(data, random))
        load_weights(path, plan)
        return True

    return case


KINDS: dict[str, Callable[[], Case]] = {
    "jpg": lambda: media(".jpg", picture(".jpg"), 300),
    "json": trees,
    "mkv": lambda: media(".mkv", movie("matroska"), 400),
    "mp4": mp4,
    "onnx": engines,
    "png": png,
    "safetensors": weights,
    "toml": texts,
}


def fuzz(kind: str, seed: int, count: int, keep: Path | None) -> Report:
    """Run `count` cases of a kind."""
    case = KINDS[kind]()
    report = Report()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for index in range(count):
            report.cases += 1
            faulthandler.dump_traceback_later(CASE_TIMEOUT_S, exit=True)
            try:
                report.past_header += case(np.random.default_rng([seed, index]), folder)
            except FastersegError as error:
                report.refused += 1
                report.past_header += kind in ("json", "onnx", "toml")
                if not str(error).strip():
                    report.faults.append(f"{kind} {seed} {index}: an error without a message")
            except Exception:  # noqa: BLE001 - whatever else comes out is what fuzzing looks for
                report.faults.append(f"{kind} {seed} {index}: {traceback.format_exc()}")
                if keep is not None:
                    for file in folder.iterdir():
                        (keep / f"{kind}-{seed}-{index}-{file.name}").write_bytes(file.read_bytes())
            finally:
                faulthandler.cancel_dump_traceback_later()
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=sorted(KINDS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--keep", type=Path, help="folder for the files of faulty cases")
    arguments = parser.parse_args()
    found: dict[str, Any] = asdict(
        fuzz(arguments.kind, arguments.seed, arguments.count, arguments.keep)
    )
    print(json.dumps(found))


if __name__ == "__main__":
    main()
