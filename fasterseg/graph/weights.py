"""Weights as NumPy arrays by name: files, strict checks, seeded stand-ins, batch norm folding."""

from __future__ import annotations

import hashlib
import math
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from fasterseg.arch.operators import BATCH_NORM_EPSILON, Conv, Layer, Project, Skip, expand
from fasterseg.arch.plan import Plan
from fasterseg.cache import write_atomic
from fasterseg.errors import WeightsError

Array = NDArray[np.float32]
Weights = Mapping[str, Array]
"""`<role>.<array>` -> array, as in the state dict of `nn.Network` (batch norm not folded)."""


def load_weights(path: Path, plan: Plan) -> dict[str, Array]:
    """Read a safetensors file for a plan; fp16 and bf16 are widened to float32.

    Arrays of the training heads are dropped when the plan has none.

    Raises:
        WeightsError: the file cannot be read, is not safetensors, or does not fit the plan.
    """
    try:
        stored = load(path.read_bytes())
    except OSError as error:
        raise WeightsError(f"cannot read weights {path}: {error.strerror or error}") from error
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise WeightsError(
            f"{path} is not a readable safetensors file ({error}). A PyTorch checkpoint is taken "
            "in with: fasterseg models import FILE --arch student --name NAME"
        ) from error
    arrays = {name: np.asarray(array, np.float32) for name, array in stored.items()}
    if not any(role.startswith("aux.") for role in plan.by_role):
        arrays = {name: a for name, a in arrays.items() if not name.startswith("aux.")}
    check_weights(arrays, plan, str(path))
    return arrays


def save_weights(path: Path, weights: Weights, dtype: type[np.floating] = np.float32) -> None:
    """Write a safetensors file atomically.

    Raises:
        OutputError: it cannot be written.
    """
    write_atomic(path, save({name: np.ascontiguousarray(a, dtype) for name, a in weights.items()}))


def check_weights(weights: Mapping[str, NDArray[np.generic]], plan: Plan, where: str) -> None:
    """Refuse arrays that are missing, surplus, of another shape, or not finite.

    Raises:
        WeightsError: lists all problems at once; `where` names the origin.
    """
    wanted = plan.parameter_shapes
    problems = []
    if missing := sorted(set(wanted) - set(weights)):
        problems.append(f"missing {_listed(missing)}")
    if surplus := sorted(set(weights) - set(wanted)):
        problems.append(f"surplus {_listed(surplus)}")
    for name in sorted(set(wanted) & set(weights)):
        if weights[name].shape != wanted[name]:
            problems.append(f"{name} is {weights[name].shape}, not {wanted[name]}")
        elif not np.isfinite(weights[name]).all():
            problems.append(f"{name} holds values that are not finite")
    if problems:
        raise WeightsError(
            f"{where} does not fit the network {plan.genotype.name} "
            f"({plan.genotype.num_classes} classes): {'; '.join(problems[:8])}"
            + (f"; and {len(problems) - 8} more" if len(problems) > 8 else "")
        )


def _listed(names: list[str]) -> str:
    return f"{len(names)}: " + ", ".join(names[:6]) + (", ..." if len(names) > 6 else "")


def seeded_weights(plan: Plan, seed: int = 0) -> dict[str, Array]:
    """Untrained weights that are the same on every machine: each array from its own name.

    Convolutions are Kaiming normal (fan_in, ReLU); batch norms and biases slightly off the
    identity, so that a graph that drops or swaps one is wrong and not merely lucky.
    """
    weights: dict[str, Array] = {}
    for name, shape in plan.parameter_shapes.items():
        generator = np.random.Generator(np.random.PCG64(zlib.crc32(f"{seed}/{name}".encode())))
        noise = generator.standard_normal(shape)
        leaf = name.rpartition(".")[2]
        if len(shape) == 4:
            value = noise * math.sqrt(2 / math.prod(shape[1:]))
        elif leaf == "weight":
            value = 1 + 0.1 * noise
        elif leaf == "running_var":
            value = 1 + 0.1 * np.abs(noise)
        else:
            value = 0.1 * noise
        weights[name] = value.astype(np.float32)
    return weights


def balance_head(weights: Weights, logits: NDArray[np.floating]) -> dict[str, Array]:
    """Shift the head's bias so that untrained weights give every class a chance.

    With random weights one class wins nearly everywhere, and then agreement of labels proves
    nothing and an overlay shows one colour.

    Args:
        weights: of the network that gave `logits`.
        logits: (N, classes, h, w), on frames that stand for the ones to come.

    Returns:
        The weights with each class's mean logit taken off its bias.
    """
    means = logits.astype(np.float64).mean(axis=(0, 2, 3))
    bias = weights["head.project.bias"] - means
    return {**weights, "head.project.bias": bias.astype(np.float32)}


def weights_sha256(plan: Plan, weights: Weights) -> str:
    """SHA-256 (hex) over the genotype and every array in the plan's order."""
    digest = hashlib.sha256(plan.genotype.digest().encode())
    for name in plan.parameter_shapes:
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(weights[name], np.float32).tobytes())
    return digest.hexdigest()


def fold(plan: Plan, weights: Weights) -> dict[str, tuple[Array, Array]]:
    """Merge every batch norm into the convolution before it.

    Args:
        plan: the network.
        weights: checked against it.

    Returns:
        `<role>.<conv>` -> (weight (C_out, C_in, k, k), bias (C_out,)), computed in float64.
    """
    folded: dict[str, tuple[Array, Array]] = {}
    for node in plan.nodes:
        for layer in expand(node.spec):
            for name, pair in _fold_layer(layer, weights, node.role):
                folded[f"{node.role}.{name}"] = pair
    return folded


def _fold_layer(layer: Layer, weights: Weights, role: str) -> list[tuple[str, tuple[Array, Array]]]:
    def array(name: str) -> NDArray[np.float64]:
        return weights[f"{role}.{name}"].astype(np.float64)

    def norm(name: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        scale = array(f"{name}.weight") / np.sqrt(array(f"{name}.running_var") + BATCH_NORM_EPSILON)
        return scale, array(f"{name}.bias") - array(f"{name}.running_mean") * scale

    def merged(
        name: str, scale: NDArray[np.float64], shift: NDArray[np.float64]
    ) -> tuple[str, tuple[Array, Array]]:
        weight = array(f"{name}.weight") * scale[:, None, None, None]
        return name, (weight.astype(np.float32), shift.astype(np.float32))

    match layer.step:
        case Conv():
            return [merged(layer.name, *norm(layer.name.replace("conv", "bn")))]
        case Project():
            weight = weights[f"{role}.project.weight"]
            return [("project", (weight, weights[f"{role}.project.bias"]))]
        case Skip() if not layer.is_identity:
            scales, shifts = (np.split(values, layer.stride) for values in norm("bn"))
            return [
                merged(f"conv{index + 1}", scales[index], shifts[index])
                for index in range(layer.stride)
            ]
        case _:
            return []
