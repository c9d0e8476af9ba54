"""Support of the parity tests: the fixtures' fill rule, balanced networks, random genotypes."""

from __future__ import annotations

import zlib
from typing import cast

import cv2
import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from fasterseg.arch.genotype import Branch, Genotype, Rate
from fasterseg.arch.operators import CANDIDATES
from fasterseg.arch.plan import Plan, plan
from fasterseg.graph.emit import EmitOptions, emit
from fasterseg.graph.weights import Weights, balance_head, seeded_weights
from fasterseg.types import Size

Float = NDArray[np.float32]


def generator(key: str) -> np.random.Generator:
    """The random generator that the fixtures' rules name: seeded by the CRC of a key."""
    return np.random.Generator(np.random.PCG64(zlib.crc32(key.encode())))


def fill(key: str, shape: tuple[int, ...]) -> NDArray[np.generic]:
    """Weights by the fill rule of the numeric fixtures."""
    leaf = key.rpartition(".")[2]
    if leaf == "num_batches_tracked":
        return np.zeros(shape, np.int64)
    noise = generator(key).standard_normal(shape)
    if leaf == "weight" and len(shape) == 4:
        value = noise * np.sqrt(2 / np.prod(shape[1:]))
    elif leaf == "weight":
        value = 1 + 0.1 * noise
    elif leaf == "running_var":
        value = 1 + 0.1 * np.abs(noise)
    else:
        value = 0.1 * noise
    return cast("NDArray[np.generic]", np.asarray(value, np.float32))


def fixture_input(key: str, shape: tuple[int, ...]) -> Float:
    """Input of a fixture."""
    return generator(key).standard_normal(shape).astype(np.float32)


def run_onnx(model: onnx.ModelProto, **feeds: NDArray[np.generic]) -> NDArray[np.generic]:
    """The first output of a model in ONNX Runtime on the CPU."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return cast("NDArray[np.generic]", session.run(None, feeds)[0])


def street_like(size: Size, seed: int = 0) -> NDArray[np.uint8]:
    """(1, H, W, 3) uint8: smooth structures and edges of many colours, quick to make."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (12, 16, 3), dtype=np.uint8)
    image = cv2.resize(coarse, (size.width, size.height), interpolation=cv2.INTER_CUBIC)
    for _ in range(40):
        x, y = int(random.integers(0, size.width)), int(random.integers(0, size.height))
        w, h = int(random.integers(4, 80)), int(random.integers(4, 60))
        colour = tuple(int(c) for c in random.integers(0, 256, 3))
        cv2.rectangle(image, (x, y), (x + w, y + h), colour, -1)
    noise = np.asarray(random.integers(0, 12, image.shape), np.uint8)
    return np.asarray(cv2.add(np.asarray(image, np.uint8), noise), np.uint8)[None]


def balanced(network: Plan, frames: NDArray[np.uint8], seed: int = 0) -> Weights:
    """Seeded weights whose head gives every class a chance on these frames."""
    weights = seeded_weights(network, seed)
    logits = run_onnx(emit(network, weights, EmitOptions("logits8")), frames=frames)
    return balance_head(weights, cast("Float", logits))


def assert_meaningful(labels: NDArray[np.generic], classes: int) -> None:
    """At least 8 classes hold 2 % of the pixels each, on a map of at least 256x512."""
    assert labels.size >= 256 * 512
    shares = np.bincount(labels.ravel().astype(np.int64), minlength=classes) / labels.size
    assert (shares >= 0.02).sum() >= 8, shares


def random_genotype(seed: int, num_classes: int = 19) -> Genotype:
    """A network drawn from the whole operator set: one to three branches, all widths."""
    random = np.random.default_rng(seed)
    branches = tuple(
        _random_branch(random, final) for final in random.permutation([8, 16, 32])[: 1 + seed % 3]
    )
    return Genotype(
        name=f"random-{seed}",
        num_classes=num_classes,
        stem_width=int(random.integers(4, 13)),
        head_width=int(random.integers(4, 13)),
        branches=branches,
    )


def _random_branch(random: np.random.Generator, final: int) -> Branch:
    rates = [8]
    while len(rates) < 5 or rates[-1] != final:
        coarser = rates[-1] < final and random.random() < 0.4
        rates.append(rates[-1] * 2 if coarser else rates[-1])
    ops = tuple(str(op) for op in random.choice(CANDIDATES, len(rates)))
    widths = tuple(int(w) for w in random.choice([4, 6, 8, 10, 12], len(rates) - 1))
    return Branch(ops, cast("tuple[Rate, ...]", tuple(rates)), widths)


def small_plan(seed: int = 5, size: Size | None = None) -> Plan:
    """A random network with 11 classes at a small size."""
    return plan(random_genotype(seed, num_classes=11), size or Size(96, 128))
