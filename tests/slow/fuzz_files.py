"""Cases of files: media, engines, weights, recipes, tables."""

from __future__ import annotations

import io
import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import onnx

from fasterseg.arch.latency import LatencyTable
from fasterseg.deploy.recipe import load_recipe
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
from tests.slow.fuzz_case import Case
from tests.slow.mutate import (
    dumped,
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
FRAMES = 12


def picture(suffix: str) -> bytes:
    """An encoded picture."""
    encoded = cv2.imencode(suffix, street_like(SIZE)[0])[1]
    return encoded.tobytes()


def movie(format_name: str, codec: str = "libx264") -> bytes:
    """Half a second of video."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=format_name) as container:
        stream: Any = container.add_stream(codec, rate=25)
        stream.width, stream.height = MOVIE.width, MOVIE.height
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        for index in range(FRAMES):
            image = street_like(MOVIE, index)[0]
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="bgr24")))
        container.mux(stream.encode(None))
    return buffer.getvalue()


def _read_media(path: Path) -> bool:
    """Whether any frame came out."""
    source = open_source(str(path))
    try:
        return sum(frame.image.size > 0 for frame in source) > 0
    finally:
        source.close()


def media(
    suffix: str, make: Callable[[], bytes], header: int
) -> Callable[[], AbstractContextManager[Case]]:
    """A picture or a video of this ending, of which the first bytes are mostly left alone."""

    @contextmanager
    def prepared() -> Iterator[Case]:
        data = make()

        def case(random: np.random.Generator, folder: Path) -> bool:
            path = folder / f"x{suffix}"
            path.write_bytes(mutate_bytes(data, random, header))
            return _read_media(path)

        yield case

    return prepared


jpg = media(".jpg", lambda: picture(".jpg"), 300)
mkv = media(".mkv", lambda: movie("matroska"), 400)


@contextmanager
def mp4() -> Iterator[Case]:
    """MP4, mostly overwritten in place."""
    data = movie("mp4")

    def case(random: np.random.Generator, folder: Path) -> bool:
        path = folder / "x.mp4"
        mutate = overwrite_bytes if random.random() < 0.7 else mutate_bytes
        path.write_bytes(mutate(data, random, 48))
        return _read_media(path)

    yield case


@contextmanager
def png() -> Iterator[Case]:
    """PNG whose checksums are right."""
    data = picture(".png")

    def case(random: np.random.Generator, folder: Path) -> bool:
        path = folder / "x.png"
        path.write_bytes(mutate_png(data, random))
        return _read_media(path)

    yield case


@contextmanager
def engines() -> Iterator[Case]:
    """ONNX engines, opened and run once."""
    data = onnx_bytes(resolve_model("fasterseg-camvid"), SIZE, EmitOptions())
    model = onnx.load_from_string(data)

    def case(random: np.random.Generator, folder: Path) -> bool:
        path = folder / "x.onnx"
        structured = random.random() < 0.8
        path.write_bytes(
            mutate_model(model, random) if structured else mutate_bytes(data, random, 64)
        )
        engine = OnnxRuntimeEngine.open(path, "cpu", threads=1)
        try:
            spec = engine.spec
            if spec.size is not None and spec.size.pixels <= 1 << 20 and spec.batch in (1, None):
                engine.run(np.zeros((1, *spec.size, 3), np.uint8))
        finally:
            engine.close()
        return True

    yield case


@contextmanager
def recipes() -> Iterator[Case]:
    """Recipes of engines."""
    texts = [p.read_text() for p in sorted((ROOT / "engines/recipes").glob("*.toml"))]

    def case(random: np.random.Generator, folder: Path) -> bool:
        path = folder / "x.toml"
        path.write_text(mutate_text(texts[int(random.integers(len(texts)))], random))
        recipe, _ = load_recipe(path)
        recipe.engine_sizes()
        return True

    yield case


@contextmanager
def trees() -> Iterator[Case]:
    """Latency tables, descriptions of engines, genotypes, model cards."""
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
        path.write_text(dumped(mutate_json((table_tree, spec, genotype, card)[kind], random)))
        if kind == 0:
            LatencyTable.load(path)
        elif kind == 1:
            EngineSpec.from_json(path.read_text(), "x.json")
        else:
            resolve_model(str(path))
        return True

    yield case


@contextmanager
def weights() -> Iterator[Case]:
    """Weights of a network."""
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

    yield case
