"""Recipes are read strictly; exports refuse to overwrite; every recipe of the repository works."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from fasterseg.deploy.export import export_onnx
from fasterseg.deploy.recipe import artefact_name, load_recipe
from fasterseg.errors import ConfigError, FastersegError, OutputExistsError, UsageError
from fasterseg.graph.emit import EmitOptions
from fasterseg.graph.precision import PROFILES
from fasterseg.runtime.base import PIXEL_AGREEMENT
from fasterseg.runtime.model import resolve_model
from fasterseg.types import Size
from tests.shared import ROOT

RECIPES = sorted((ROOT / "engines" / "recipes").glob("*.toml"))
SIZE = Size(64, 64)


def test_there_are_recipes() -> None:
    assert len(RECIPES) >= 2


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_of_the_repository_loads(path: Path) -> None:
    recipe, model = load_recipe(path)
    assert recipe.engine_sizes()
    assert len(model.labels) == model.genotype.num_classes
    assert recipe.pixel_agreement == PIXEL_AGREEMENT[recipe.precision]
    if recipe.precision == "int8":
        assert model.load_ranges().values


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


GOOD = 'genotype = "zoo:fasterseg-camvid"\nsizes = ["64x64"]\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (GOOD + "sizs = 1\n", r"unknown key 'sizs'.*did you mean 'sizes'"),
        ('sizes = ["64x64"]\n', "'genotype' is missing"),
        (GOOD + 'precision = "fp12"\n', "'fp12' is not one of"),
        ('genotype = "zoo:fasterseg-camvid"\nsizes = []\n', "sizes is empty"),
        ('genotype = "zoo:fasterseg-camvid"\nsizes = ["64"]\n', "HEIGHTxWIDTH"),
        ('genotype = "zoo:nothing"\nsizes = ["64x64"]\n', "unknown model"),
        (GOOD + 'profile = "gpu"\n', "'gpu' is not one of 'cpu', 'tensorrt'"),
        (GOOD + 'labels = "cityscapes"\n', "19 classes, the network 11"),
        (GOOD + "[thresholds]\npixels = 1\n", "unknown key 'pixels'"),
        ("not toml", "not TOML"),
    ],
)
def test_bad_recipes_say_what_is_wrong(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path / "r.toml", text)
    with pytest.raises(FastersegError, match=message):
        load_recipe(path)[0].engine_sizes()


def test_weights_with_another_hash_are_refused(tmp_path: Path) -> None:
    (tmp_path / "w.safetensors").write_bytes(b"x")
    text = GOOD + 'weights = {path = "w.safetensors", sha256 = "00"}\n'
    with pytest.raises(ConfigError, match="hash to"):
        load_recipe(write(tmp_path / "r.toml", text))


def test_an_export_is_a_valid_model_and_is_not_overwritten(tmp_path: Path) -> None:
    target = tmp_path / artefact_name("fasterseg-camvid", SIZE, EmitOptions())
    assert target.name == "fasterseg-camvid_64x64_b1_fp32.onnx"
    model = resolve_model("fasterseg-camvid")
    export_onnx(model, SIZE, EmitOptions(), target)
    onnx.checker.check_model(onnx.load(target), full_check=True)
    before = target.read_bytes()
    with pytest.raises(OutputExistsError, match="--overwrite"):
        export_onnx(model, SIZE, EmitOptions(precision="fp16"), target)
    assert target.read_bytes() == before
    export_onnx(model, SIZE, EmitOptions(precision="fp16"), target, overwrite=True)
    assert target.read_bytes() != before


def test_the_name_tells_the_int8_profile() -> None:
    names = [
        artefact_name("m", SIZE, EmitOptions(precision="int8", batch=2, profile=profile))
        for profile in PROFILES
    ]
    assert names == ["m_64x64_b2_int8.onnx", "m_64x64_b2_int8-tensorrt.onnx"]
    assert artefact_name("m", SIZE, EmitOptions(profile="tensorrt")) == "m_64x64_b1_fp32.onnx"


def test_a_recipe_may_bring_ranges_of_its_own(tmp_path: Path) -> None:
    text = GOOD + 'precision = "int8"\nprofile = "tensorrt"\nranges = "own.ranges.json"\n'
    recipe, model = load_recipe(write(tmp_path / "r.toml", text))
    assert (recipe.profile, model.ranges) == ("tensorrt", tmp_path / "own.ranges.json")


def test_another_suffix_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"\.onnx"):
        export_onnx(resolve_model("fasterseg-camvid"), SIZE, EmitOptions(), tmp_path / "x.engine")
