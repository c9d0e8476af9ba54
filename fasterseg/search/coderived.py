"""The network that the logits of a mixture stand for, with the weights it has in the supernet."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from fasterseg.arch.genotype import Genotype, Rate
from fasterseg.arch.plan import Node, Plan, plan
from fasterseg.arch.space import SearchSpace
from fasterseg.errors import UsageError
from fasterseg.nn.network import Network
from fasterseg.nn.weights import from_arrays
from fasterseg.search.derive import derive_genotype, keep_layers, likely_path
from fasterseg.search.mixture import Kind, Mixture, set_name, student_space, teacher_space
from fasterseg.types import Size

_ANY: Final = Size(64, 64)


def space_of(net: Mixture, kind: Kind) -> SearchSpace:
    """The part of the space that the teacher or the student is searched in."""
    return teacher_space(net.space) if kind == "teacher" else student_space(net.space)


def derived(net: Mixture, kind: Kind, rates: tuple[Rate, ...]) -> Genotype:
    """What `derive_genotype` makes of the logits; the teacher skips nothing."""
    return derive_genotype(
        net.arch(kind).parameters_taken(),
        rates,
        space_of(net, kind),
        name=f"searched-{kind}",
        ignore_skip=kind == "teacher",
        original=net.original,
    )


def inherited(net: Mixture, kind: Kind, rates: tuple[Rate, ...]) -> Network:
    """The derived network with the weights and statistics that its parts have in the supernet.

    Raises:
        UsageError: the supernet has the structure of the original, whose merges read other maps.
    """
    if net.original:
        raise UsageError(
            "a network derived from the original's supernet cannot inherit its weights: merges "
            "read other maps there. Train it from scratch, or search with original = false"
        )
    network = Network(plan(derived(net, kind, rates), _ANY))
    layers = [_kept(net, kind, rate) for rate in rates]
    arrays: dict[str, NDArray[np.float32]] = {}
    for node in network.nodes:
        source = _source(net, kind, network.plan, node, layers)
        prefix = f"{node.role}."
        for name, shape in network.plan.parameter_shapes.items():
            if name.startswith(prefix):
                tensor = _array(source, name.removeprefix(prefix), shape)
                arrays[name] = tensor.detach().cpu().float().numpy().copy()
    from_arrays(network, arrays)
    return network


def _kept(net: Mixture, kind: Kind, rate: Rate) -> list[tuple[int, int]]:
    """(layer, scale) of the cells of a derived branch."""
    parameters = net.arch(kind).parameters_taken()
    path = likely_path(parameters, rate)
    if "skip" not in net.space.ops:
        return list(enumerate(path))
    cells = [parameters.alpha[scale][layer - scale].copy() for layer, scale in enumerate(path)]
    skip = net.space.ops.index("skip")
    return [(layer, path[layer]) for layer in keep_layers(cells, path, skip, kind == "teacher")]


def _source(
    net: Mixture, kind: Kind, network: Plan, node: Node, layers: Sequence[list[tuple[int, int]]]
) -> nn.Module:
    """The part of the supernet that a node is a part of."""
    own = net.parts(kind)
    branches = network.genotype.branches
    name = set_name([branch.final_rate for branch in branches])
    match node.role.split("."):
        case ["stem", place]:
            return own.stem[int(place)]
        case ["cell", place, branch]:
            cell = net.cell(*layers[int(branch)][int(place)])
            mixed = cell.keep if node.spec.stride == 1 else cell.down
            assert mixed is not None, f"{node.role} is strided"
            return mixed.blocks[node.spec.op]
        case ["squeeze" | "fuse" as part, branch, rate]:
            merges: nn.ModuleDict = getattr(own, part)
            return merges[f"{branches[int(branch)].final_rate}_{rate}"]
        case ["ffm" | "head" as part]:
            sets: nn.ModuleDict = getattr(own, part)
            return sets[name]
    raise AssertionError(f"{node.role} is not a part of a supernet")


def _array(source: nn.Module, name: str, shape: tuple[int, ...]) -> Tensor:
    """The leading part of an array, from a block of one width or a slimmable one."""
    state = source.state_dict()
    module, _, leaf = name.partition(".")
    for candidate in _names(module, leaf, state):
        tensor: Tensor = state[candidate]
        if leaf == "weight" and tensor.ndim == 4:
            return tensor[: shape[0], : shape[1]]
        if tuple(tensor.shape) == shape:
            return tensor
    raise AssertionError(f"no {name} of {shape} in {source}")


def _names(module: str, leaf: str, state: Iterable[str]) -> list[str]:
    """Where it may be: a slimmable convolution holds one norm for each width."""
    plain = {f"{module}.{leaf}", f"{module}.conv.{leaf}"}
    norms = f"conv{module.removeprefix('bn')}.norms."
    of_widths = {
        name
        for name in state
        if module.startswith("bn") and name.startswith(norms) and name.endswith(f".{leaf}")
    }
    return [name for name in state if name in plain | of_widths]
