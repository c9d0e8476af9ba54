"""Names that the original supernet stores its arrays under, for each of ours."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from fasterseg.arch.operators import CANDIDATES
from fasterseg.search.mixture import KINDS, Mixture

_HEADS: Final = {"8": "head0", "16": "head1", "32": "head2", "8_32": "head02", "16_32": "head12"}
_REFINES: Final = {"16_8": ("refine16", 0), "32_16": ("refine32", 0), "32_8": ("refine32", 2)}
"""Ours -> the original's list and the place of the 1x1 convolution in it; the 3x3 one follows."""

_RULES: Final = tuple(
    (re.compile(pattern), theirs)
    for pattern, theirs in (
        # slimmable blocks: one convolution, a batch norm for each width
        (r"\.norms\.(\d+)\.", r".bn.bn.\1."),
        (r"\.(conv)(\d)\.bn\.bn\.", r".bn\2.bn."),
        (r"\.(conv\d)\.conv\.", r".\1."),
    )
)


def original_names(net: Mixture) -> dict[str, str]:
    """Our name of every array of a supernet -> the original's.

    Args:
        net: with the structure of the original.
    """
    return dict(_named(net))


def _named(net: Mixture) -> Iterator[tuple[str, str]]:
    for ours in net.state_dict():
        part, rest = ours.split(".", 1)
        match part:
            case "logits":
                kind, group, index = rest.split(".")
                scale = int(index) + (group == "beta")
                yield ours, f"{group}_{KINDS.index(kind)}_{scale}"
            case "cells":
                yield ours, _cell_name(rest)
            case _:
                kind, rest = rest.split(".", 1)
                yield ours, _own_name(rest, KINDS.index(kind))


def _cell_name(rest: str) -> str:
    layer, scale, which, _, op, leaf = rest.split(".", 5)
    place = "_op._ops" if which == "keep" else "downsample._ops"
    name = f"cells.{layer}.{scale}.{place}.{CANDIDATES.index(op)}.{leaf}"
    for pattern, theirs in _RULES:
        name = pattern.sub(theirs, name)
    return name


def _own_name(rest: str, index: int) -> str:
    part, name, leaf = rest.split(".", 2)
    module, _, array = leaf.partition(".")
    match part:
        case "stem" if name != "0":
            return f"stem.{index}.{name}.{leaf}"
        case "stem":
            return f"stem.{index}.0.conv.{0 if module == 'conv1' else 1}.{array}"
        case "squeeze" | "fuse":
            folder, place = _REFINES[name]
            place += part == "fuse"
            return f"{folder}.{index}.{place}.conv.{0 if module == 'conv1' else 1}.{array}"
        case _:
            inner = {"conv1": "conv_3x3.conv", "bn1": "conv_3x3.bn", "project": "conv_1x1"}[module]
            return f"{_HEADS[name]}.{index}.{inner}.{array}"
