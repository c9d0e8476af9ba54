"""`Recipe`: a TOML file that says which engines to make and what they must reach."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from fasterseg.config import load_toml
from fasterseg.errors import ConfigError
from fasterseg.graph.emit import EmitOptions
from fasterseg.graph.precision import Profile
from fasterseg.labels import label_set
from fasterseg.runtime.base import PIXEL_AGREEMENT
from fasterseg.runtime.model import Model, resolve_model
from fasterseg.types import Precision, Size

ZOO_PREFIX: Final = "zoo:"
BUILD_FOLDER: Final = Path("engines/build")


@dataclass(frozen=True)
class Thresholds:
    """What `fasterseg verify` demands; the defaults are those of the precision.

    Attributes:
        pixel_agreement: share of labels equal to the fp32 reference, in [0, 1].
    """

    pixel_agreement: float | None = None


@dataclass(frozen=True)
class WeightFile:
    """Weights of a recipe.

    Attributes:
        path: safetensors file, relative to the recipe.
        sha256: hash of architecture and weights (`fasterseg info MODEL` prints it).
    """

    path: str
    sha256: str


@dataclass(frozen=True)
class Recipe:
    """Engines to make.

    Attributes:
        genotype: `zoo:NAME`, the name of an imported model, or a genotype `.json` relative to
            the recipe.
        sizes: engine sizes, HxW.
        precision: type inside the engines.
        batch: frames per call.
        labels: name of the label set; the model's own where left out.
        weights: for a genotype file; a named model brings its own.
        profile: how int8 is written, for the runtime that will run it: "cpu" or "tensorrt".
        ranges: activation ranges for int8, relative to the recipe; the model's own where left
            out.
        thresholds: parity demanded.
    """

    genotype: str
    sizes: tuple[str, ...]
    precision: Precision = "fp32"
    batch: int = 1
    labels: str | None = None
    weights: WeightFile | None = None
    profile: Profile = "cpu"
    ranges: str | None = None
    thresholds: Thresholds = field(default_factory=Thresholds)

    def engine_sizes(self) -> list[Size]:
        """The sizes, parsed.

        Raises:
            UsageError: one is not HxW.
        """
        return [Size.parse(text) for text in self.sizes]

    @property
    def pixel_agreement(self) -> float:
        """Agreement demanded of these engines."""
        stated = self.thresholds.pixel_agreement
        return PIXEL_AGREEMENT[self.precision] if stated is None else stated


def load_recipe(path: Path) -> tuple[Recipe, Model]:
    """Read a recipe and resolve its model.

    Raises:
        ConfigError: the file does not fit `Recipe`, or the weights' hash is not the stated one.
        UnknownNameError: the model or label set is unknown.
    """
    recipe = load_toml(path, Recipe)
    if not recipe.sizes:
        raise ConfigError(f"{path}: sizes is empty; give at least one, such as '512x1024'")
    name = recipe.genotype.removeprefix(ZOO_PREFIX)
    if name.endswith(".json"):
        name = str(path.parent / name)
    model = resolve_model(name)
    if recipe.labels is not None:
        model = replace(model, labels=label_set(recipe.labels))
    if recipe.weights is not None:
        model = replace(model, weights=path.parent / recipe.weights.path)
    if recipe.ranges is not None:
        model = replace(model, ranges=path.parent / recipe.ranges)
    if len(model.labels) != model.genotype.num_classes:
        raise ConfigError(
            f"{path}: label set {model.labels.name} has {len(model.labels)} classes, "
            f"the network {model.genotype.num_classes}"
        )
    if recipe.weights is not None and model.source_sha256 != recipe.weights.sha256:
        raise ConfigError(
            f"{path}: weights {recipe.weights.path} hash to {model.source_sha256}, the recipe "
            f"says {recipe.weights.sha256}. Use the weights it was written for, or change the hash"
        )
    return recipe, model


def artefact_name(model: str, size: Size, options: EmitOptions) -> str:
    """File name of an ONNX engine, as `fasterseg export` writes it."""
    numbers: str = options.precision
    if options.precision == "int8" and options.profile != "cpu":
        numbers += f"-{options.profile}"
    return f"{model}_{size}_b{options.batch}_{numbers}.onnx"
