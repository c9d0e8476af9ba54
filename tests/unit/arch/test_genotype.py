"""Genotypes as values: what they refuse, how they are stored and compared."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from fasterseg.arch.genotype import Branch, Genotype
from fasterseg.errors import ConfigError
from tests.shared import shared, zoo_genotype

BRANCH = Branch(("conv", "conv_2x", "skip"), (8, 16, 32), (4, 12))


def genotype(**fields: Any) -> Genotype:
    values = {"name": "g", "num_classes": 19, "stem_width": 8, "head_width": 8}
    return Genotype(**{**values, "branches": (BRANCH,), **fields})


def test_a_branch_knows_its_rates() -> None:
    assert BRANCH.final_rate == 32
    assert [BRANCH.next_rate(cell) for cell in range(3)] == [16, 32, 32]


@pytest.mark.parametrize(
    ("ops", "strides", "widths", "message"),
    [
        (("conv", "dilated"), (8, 8), (4,), r"unknown operators \['dilated'\]"),
        (("conv", "head"), (8, 8), (4,), r"unknown operators \['head'\]"),
        ((), (), (), "one stride per cell"),
        (("conv", "conv"), (8,), (4,), "2 ops, 1 strides"),
        (("conv", "conv"), (8, 8), (), "needs 1 widths, not 0"),
        (("conv", "conv"), (8, 8), (4, 4), "needs 1 widths, not 2"),
        (("conv",), (16,), (), "not a path"),
        (("conv", "conv"), (8, 32), (4,), "not a path"),
        (("conv", "conv", "conv"), (8, 16, 8), (4, 4), "not a path"),
        (("conv", "conv"), (8, 8), (3,), "width 3"),
        (("conv", "conv"), (8, 8), (13,), "width 13"),
    ],
)
def test_a_branch_that_is_no_path_is_refused(
    ops: Any, strides: Any, widths: Any, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        Branch(ops, strides, widths)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"num_classes": 0}, "num_classes 0"),
        ({"num_classes": 128}, "between 1 and 127"),
        ({"stem_width": 3}, "stem_width 3"),
        ({"head_width": 13}, "head_width 13"),
        ({"branches": ()}, "at least one branch"),
    ],
)
def test_a_genotype_out_of_range_is_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        genotype(**wrong)


@pytest.mark.parametrize("name", ["fasterseg-student", "fasterseg-teacher"])
def test_json_reads_back_to_the_same_genotype(name: str) -> None:
    released = zoo_genotype(name)
    text = json.dumps(released.to_json())
    assert Genotype.from_json(json.loads(text)) == released
    assert hash(Genotype.from_json(json.loads(text))) == hash(released)
    assert released.name == name


def test_json_with_unknown_missing_or_wrong_keys_names_the_key() -> None:
    data = genotype().to_json()
    with pytest.raises(ConfigError, match=r"g\.json: unknown key 'nam'; did you mean 'name'"):
        Genotype.from_json({**data, "nam": 1}, "g.json")
    with pytest.raises(ConfigError, match="key 'stem_width' is missing"):
        Genotype.from_json({key: data[key] for key in data if key != "stem_width"})
    with pytest.raises(ConfigError, match="num_classes: expected int"):
        Genotype.from_json({**data, "num_classes": "19"})
    with pytest.raises(ConfigError, match="upsample: 'nearest'"):
        Genotype.from_json({**data, "upsample": "nearest"})
    branch = {"ops": ["conv"], "strides": [12], "widths": []}
    with pytest.raises(ConfigError, match="12 is not one of 8, 16, 32"):
        Genotype.from_json({**data, "branches": [branch]})


def test_the_digest_is_of_everything_but_the_name() -> None:
    digest = genotype().digest()
    assert len(digest) == 64
    assert genotype(name="another").digest() == digest
    changed = [
        genotype(num_classes=11),
        genotype(stem_width=6),
        genotype(head_width=6),
        genotype(branches=(BRANCH, BRANCH)),
        genotype(branches=(replace(BRANCH, widths=(4, 10)),)),
    ]
    assert len({digest, *(other.digest() for other in changed)}) == len(changed) + 1


def test_other_classes_leave_everything_else() -> None:
    released = zoo_genotype("fasterseg-student")
    camvid = released.with_classes(11)
    assert camvid == replace(released, num_classes=11)
    assert released.with_classes(11, "fasterseg-camvid").name == "fasterseg-camvid"


@pytest.mark.parametrize("name", ["student", "teacher"])
def test_zoo_genotypes_are_the_released_architectures(name: str) -> None:
    path = shared(f"reference/fasterseg-{name}.json")
    reference = json.loads(path.read_text(encoding="utf-8"))
    branches = tuple(
        Branch(
            tuple(cell["op"] for cell in branch["cells"]),
            tuple(branch["path_scales"]),
            tuple(branch["widths_twelfths"]),
        )
        for branch in reference["branches"]
    )
    assert zoo_genotype(f"fasterseg-{name}").branches == branches
