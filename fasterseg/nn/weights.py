"""Torch side of weights: networks to and from arrays, and official FasterSeg checkpoints."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fasterseg.arch.plan import Plan
from fasterseg.errors import WeightsError
from fasterseg.graph.weights import Array, Weights, check_weights
from fasterseg.nn.network import Network

_COUNTER = "num_batches_tracked"


def to_arrays(network: Network) -> dict[str, Array]:
    """The network's weights as float32 arrays, batch norm not folded."""
    state = network.state_dict()
    return {
        name: tensor.detach().cpu().numpy().astype(np.float32)
        for name, tensor in state.items()
        if not name.endswith(_COUNTER)
    }


def from_arrays(network: Network, weights: Weights) -> None:
    """Put arrays into a network, strictly.

    Raises:
        WeightsError: they do not fit.
    """
    check_weights(weights, network.plan, "weights")
    state = network.state_dict()
    with torch.no_grad():
        for name, array in weights.items():
            state[name].copy_(torch.from_numpy(np.array(array, np.float32)))


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """Read a torch state dict, refusing anything in it that is not a tensor.

    Raises:
        WeightsError: unreadable, not a state dict, or a pickle that carries code.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise WeightsError(f"cannot read {path}: {error.strerror or error}") from error
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"{path} holds more than tensors and was not loaded: a pickle can run code. Save it "
            "again as a plain state dict: torch.save(model.state_dict(), FILE)"
        ) from error
    except (RuntimeError, EOFError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise WeightsError(f"{path} is not a PyTorch checkpoint: {error}") from error
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise WeightsError(
            f"{path} is not a plain state dict (name -> tensor). Save it again: "
            "torch.save(model.state_dict(), FILE)"
        )
    return state


def import_official(path: Path, plan: Plan) -> dict[str, Array]:
    """Read an official FasterSeg checkpoint (`weights0.pt`, `weights1.pt`) for a plan.

    Args:
        path: the file, with or without training heads.
        plan: planned with `aux_heads=True` to keep the training heads where the file has them.

    Returns:
        Arrays by our names; training heads only where the file has them.

    Raises:
        WeightsError: keys are missing or surplus, shapes differ, or shared cells disagree.
    """
    return from_official(read_checkpoint(path), plan, str(path))


def from_official(
    state: Mapping[str, Tensor], plan: Plan, where: str = "checkpoint"
) -> dict[str, Array]:
    """Translate an official state dict; see `import_official`.

    The unused `ffm.channel_attention.*` is the only thing dropped (spec section 1.5).
    """
    ours_by_official = official_names(plan)
    has_aux = any(key.startswith(("heads16.", "heads32.")) for key in state)
    wanted = {
        official: ours
        for official, ours in ours_by_official.items()
        if has_aux or not ours.startswith("aux.")
    }
    ignored = ("ffm.channel_attention.",)
    given = {k for k in state if not k.endswith(_COUNTER) and not k.startswith(ignored)}
    problems = []
    if missing := sorted(set(wanted) - given):
        problems.append(f"missing {len(missing)}: {', '.join(missing[:6])}")
    if surplus := sorted(given - set(wanted)):
        problems.append(f"surplus {len(surplus)}: {', '.join(surplus[:6])}")
    if problems:
        raise WeightsError(
            f"{where} is not an official checkpoint of {plan.genotype.name}: "
            f"{'; '.join(problems)}. The other architecture? Try --arch student or teacher"
        )
    shapes = plan.parameter_shapes
    arrays: dict[str, Array] = {}
    for official, ours in wanted.items():
        array = state[official].detach().float().numpy()
        if array.shape != shapes[ours]:
            raise WeightsError(f"{where}: {official} is {array.shape}, not {shapes[ours]}")
        if ours in arrays and not np.array_equal(arrays[ours], array):
            raise WeightsError(
                f"{where}: {official} differs from the cell it is shared with; the file is damaged"
            )
        arrays[ours] = array
    return arrays


def official_names(plan: Plan) -> dict[str, str]:
    """Official key -> our name, for every array of a plan (a shared cell has several keys)."""
    names: dict[str, str] = {}
    for role, prefixes in _official_prefixes(plan).items():
        for name in plan.parameter_shapes:
            if not name.startswith(f"{role}."):
                continue
            leaf = name.removeprefix(f"{role}.")
            for prefix in prefixes:
                names[f"{prefix}.{_official_leaf(role, leaf)}"] = name
    return names


def _official_prefixes(plan: Plan) -> dict[str, list[str]]:
    """Role -> prefixes under which the original stores it."""
    prefixes = {
        "stem.0": ["stem.0"],
        "stem.1": ["stem.1"],
        "stem.2": ["stem.2"],
        "ffm": ["ffm.conv_1x1"],
        "head": ["heads8"],
        "aux.16": ["heads16"],
        "aux.32": ["heads32"],
    }
    for index, branch in enumerate(plan.genotype.branches):
        names = {"16": "32.0", "8": "32.1"} if branch.final_rate == 32 else {"8": "16"}
        for rate, suffix in names.items():
            prefixes[f"squeeze.{index}.{rate}"] = [f"arms{suffix}"]
            prefixes[f"fuse.{index}.{rate}"] = [f"refines{suffix}"]
        for cell, role in enumerate(plan.branch_cells(index)):
            prefixes.setdefault(role, []).append(f"cells.{cell}-{index}._op._op")
    return {role: found for role, found in prefixes.items() if role in plan.by_role}


def _official_leaf(role: str, leaf: str) -> str:
    """`conv1.weight` -> what the original calls it inside this kind of block."""
    module, _, array = leaf.partition(".")
    if role == "stem.0" or role.startswith(("squeeze.", "fuse.")):
        return f"conv.{0 if module == 'conv1' else 1}.{array}"
    if role == "ffm":
        return f"{'conv' if module == 'conv1' else 'bn'}.{array}"
    if role == "head" or role.startswith("aux."):
        inner = {"conv1": "conv_3x3.conv", "bn1": "conv_3x3.bn", "project": "conv_1x1"}
        return f"{inner[module]}.{array}"
    return leaf
