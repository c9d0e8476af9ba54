"""`--model`: a name, folder or genotype file -> architecture, labels, weights with hashes."""

from __future__ import annotations

import colorsys
import hashlib
import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from fasterseg.arch.genotype import Genotype
from fasterseg.arch.plan import Plan
from fasterseg.cache import data_root, write_atomic
from fasterseg.config import parse_json
from fasterseg.errors import (
    ConfigError,
    OutputError,
    OutputExistsError,
    UnknownNameError,
    UsageError,
    WeightsError,
)
from fasterseg.graph.ranges import SUFFIX, Ranges, load_ranges, save_ranges
from fasterseg.graph.weights import Weights, load_weights, save_weights, seeded_weights
from fasterseg.labels import LabelSet, label_set
from fasterseg.registry import unknown
from fasterseg.types import Size

ZOO: Final = Path(__file__).parent.parent / "zoo"
DEFAULT_MODEL: Final = "fasterseg-camvid"
CARD: Final = "model.json"
CARD_SCHEMA: Final = 1
WEIGHTS: Final = "weights.safetensors"
RANGES: Final = "ranges.json"
FOREIGN_LICENCE: Final = "see the weights' origin"
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True, slots=True)
class Model:
    """A network that can be made into an engine.

    Attributes:
        name: what the user calls it.
        genotype: its architecture.
        labels: its classes.
        train_size: size it was trained at; default engine sizes follow from it.
        weights: safetensors file, or None for seeded untrained weights.
        seed: of the untrained weights.
        licence: of architecture and weights.
        about: one line for people.
        origin: "zoo", "imported" or "file".
        ranges: activation ranges that int8 needs, or None where nobody has measured them.
        file: the model card or genotype it was read from, None for the zoo's.
    """

    name: str
    genotype: Genotype
    labels: LabelSet
    train_size: Size
    weights: Path | None
    seed: int = 0
    licence: str = ""
    about: str = ""
    origin: str = "file"
    ranges: Path | None = None
    file: Path | None = None

    @property
    def trained(self) -> bool:
        """Whether the weights were trained; class maps of seeded ones mean nothing."""
        return self.weights is not None

    def load_weights(self, plan: Plan) -> Weights:
        """Arrays for a plan of this model.

        Raises:
            WeightsError: the file is missing, damaged, or does not fit.
        """
        if self.weights is not None:
            return load_weights(self.weights, plan)
        return seeded_weights(plan, self.seed)

    def load_ranges(self) -> Ranges:
        """How far its activations reach.

        Raises:
            WeightsError: there are none, or their file is damaged; the message names the
                command that measures them.
        """
        if self.ranges is not None:
            return load_ranges(self.ranges)
        name = self.file if self.file and self.origin == "file" else self.name
        kept = "" if self.file else f" -o FILE{SUFFIX}; then fasterseg export --ranges"
        raise WeightsError(
            f"model {self.name} has no activation ranges, which int8 needs. Measure them on "
            f"frames like those to come: fasterseg calibrate {name} --images PATH{kept}"
        )

    @property
    def source_sha256(self) -> str:
        """SHA-256 (hex) of everything the class maps depend on: architecture and weights.

        Raises:
            WeightsError: the weight file cannot be read.
        """
        digest = hashlib.sha256(self.genotype.digest().encode())
        if self.weights is None:
            digest.update(f"seeded/{self.seed}".encode())
        else:
            try:
                digest.update(self.weights.read_bytes())
            except (OSError, ValueError) as error:
                reason = getattr(error, "strerror", None) or error
                raise WeightsError(f"cannot read weights {self.weights}: {reason}") from error
        return digest.hexdigest()


def resolve_model(name: str) -> Model:
    """Find a model by name, or read one from a `.json` file or a folder with a model card.

    Raises:
        UnknownNameError: no such model; the message lists the known ones.
        ConfigError: the file cannot be read or is neither genotype nor card.
    """
    if name.endswith(".json"):
        return _from_file(Path(name))
    index = _zoo_index()
    if name in index:
        return _from_zoo(name, index[name])
    card = models_folder() / name / CARD
    if _NAME.fullmatch(name) and card.is_file():
        return _from_card(card, "imported")
    if _holds_card(Path(name)):
        return _from_card(Path(name) / CARD, "file")
    raise UnknownNameError(unknown("model", name, [*index, *_imported_names()]))


def _holds_card(folder: Path) -> bool:
    try:
        return (folder / CARD).is_file()
    except OSError:  # a name longer than the file system takes is no folder
        return False


def list_models() -> list[Model]:
    """Every model that a name leads to: the zoo's first, then the imported ones."""
    return [resolve_model(name) for name in (*_zoo_index(), *_imported_names())]


def models_folder() -> Path:
    """Where imported models are kept."""
    return data_root() / "models"


def add_model(
    name: str,
    genotype: Genotype,
    labels: LabelSet,
    train_size: Size,
    weights: Weights,
    about: str,
    overwrite: bool = False,
) -> Model:
    """Store a model under a name, to be used like any other.

    Raises:
        UsageError: the name is not a plain word, or belongs to the zoo.
        OutputExistsError: there is a model of that name and `overwrite` is False.
        OutputError: the folder cannot be written.
    """
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"'{name}' cannot be a model name: use letters, digits, '.', '_' and '-' (64 at most)"
        )
    if name in _zoo_index():
        raise UsageError(f"'{name}' is a model of the package; choose another name")
    folder = models_folder() / name
    if (folder / CARD).exists() and not overwrite:
        raise OutputExistsError(
            f"model '{name}' exists. Replace it with --overwrite, or remove it: "
            f"fasterseg models remove {name}"
        )
    write_model(
        folder,
        Model(name, genotype, labels, train_size, None, licence=FOREIGN_LICENCE, about=about),
        weights,
    )
    return resolve_model(name)


def write_model(
    folder: Path,
    model: Model,
    weights: Weights,
    *,
    dtype: type[np.floating] = np.float32,
    training: Mapping[str, Any] | None = None,
    ranges: Ranges | None = None,
) -> None:
    """Write a folder that is a model: weights, then the card that makes them one.

    Args:
        folder: created where it is not there.
        model: what the card says; its own weights and seed are not looked at.
        weights: arrays of its network.
        dtype: how they are stored.
        training: how they were made, as JSON values; kept in the card.
        ranges: activation ranges measured with these weights.

    Raises:
        OutputError: the folder cannot be written.
    """
    card = {
        "schema": CARD_SCHEMA,
        "name": model.name,
        "genotype": model.genotype.to_json(),
        "labels": model.labels.to_json(),
        "train_size": str(model.train_size),
        "weights": WEIGHTS,
        "licence": model.licence,
        "about": model.about,
        **({"ranges": RANGES} if ranges is not None else {}),
        **({"training": training} if training is not None else {}),
    }
    if ranges is not None:
        save_ranges(folder / RANGES, ranges)
    save_weights(folder / WEIGHTS, weights, dtype)
    # The card comes last: a model without one does not exist.
    write_atomic(folder / CARD, (json.dumps(card, indent=2) + "\n").encode())


def remove_model(name: str) -> Path:
    """Delete an imported model; returns the folder that is gone.

    Raises:
        UsageError: it belongs to the package.
        UnknownNameError: there is none of that name.
        OutputError: it cannot be deleted.
    """
    if name in _zoo_index():
        raise UsageError(f"'{name}' is a model of the package and stays")
    if name not in _imported_names():
        raise UnknownNameError(unknown("imported model", name, _imported_names()))
    folder = models_folder() / name
    try:
        shutil.rmtree(folder)
    except OSError as error:
        raise OutputError(f"cannot delete {folder}: {error.strerror or error}") from error
    return folder


def generic_labels(num_classes: int) -> LabelSet:
    """Numbered classes with well-spread colours, for a network whose labels nobody named."""
    golden_ratio = 0.618034
    colours = []
    for index in range(num_classes):
        rgb = colorsys.hsv_to_rgb(index * golden_ratio % 1.0, 0.65, 0.9 - 0.3 * (index % 2))
        colours.append((round(rgb[0] * 255), round(rgb[1] * 255), round(rgb[2] * 255)))
    names = tuple(f"class {index}" for index in range(num_classes))
    return LabelSet(f"generic-{num_classes}", names, tuple(colours))


def _imported_names() -> list[str]:
    folder = models_folder()
    return sorted(p.parent.name for p in folder.glob(f"*/{CARD}")) if folder.is_dir() else []


def _zoo_index() -> dict[str, Any]:
    models: dict[str, Any] = json.loads((ZOO / "index.json").read_text(encoding="utf-8"))["models"]
    return models


def _from_zoo(name: str, entry: Mapping[str, Any]) -> Model:
    path = ZOO / entry["genotype"]
    return Model(
        name=name,
        genotype=Genotype.from_json(_read_json(path), str(path)),
        labels=label_set(entry["labels"]),
        train_size=Size.parse(entry["train_size"]),
        weights=ZOO / entry["weights"] if entry["weights"] else None,
        seed=entry["seed"],
        licence=entry["licence"],
        about=entry["about"],
        origin="zoo",
        ranges=ZOO / entry["ranges"] if entry.get("ranges") else None,
    )


def _from_file(path: Path) -> Model:
    """A genotype (weights beside it under the same stem) or a model card."""
    data = _read_json(path)
    if isinstance(data, dict) and "genotype" in data:
        return _from_card(path, "file")
    genotype = Genotype.from_json(data, str(path))
    weights, ranges = path.with_suffix(".safetensors"), path.with_suffix(SUFFIX)
    return Model(
        name=genotype.name,
        genotype=genotype,
        labels=generic_labels(genotype.num_classes),
        train_size=Size(1024, 2048),
        weights=weights if weights.is_file() else None,
        about=f"genotype {path}",
        ranges=ranges if ranges.is_file() else None,
        file=path,
    )


def _from_card(path: Path, origin: str) -> Model:
    data = _read_json(path)
    try:
        if data["schema"] != CARD_SCHEMA:
            raise ConfigError(
                f"{path} is a model card of schema {data['schema']}; this fasterseg reads "
                f"{CARD_SCHEMA}. Upgrade: pip install -U fasterseg"
            )
        return Model(
            name=str(data["name"]),
            genotype=Genotype.from_json(data["genotype"], str(path)),
            labels=LabelSet.from_json(data["labels"]),
            train_size=Size.parse(data["train_size"]),
            weights=path.parent / data["weights"],
            licence=str(data.get("licence", "")),
            about=str(data.get("about", "")),
            origin=origin,
            ranges=path.parent / data["ranges"] if data.get("ranges") else None,
            file=path,
        )
    except (KeyError, TypeError) as error:
        raise ConfigError(f"{path} is not a model card: {error!r}") from error


def _read_json(path: Path) -> Any:
    try:
        return parse_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise ConfigError(f"{path} is not JSON: {error}") from error
