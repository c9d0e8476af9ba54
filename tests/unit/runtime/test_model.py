"""Names and files lead to models; imported ones are names like any other."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from fasterseg.arch.plan import plan
from fasterseg.errors import (
    ConfigError,
    OutputExistsError,
    UnknownNameError,
    UsageError,
    WeightsError,
)
from fasterseg.graph.weights import save_weights, seeded_weights
from fasterseg.labels import CAMVID
from fasterseg.runtime.model import (
    DEFAULT_MODEL,
    ZOO,
    Model,
    add_model,
    generic_labels,
    list_models,
    models_folder,
    remove_model,
    resolve_model,
)
from fasterseg.types import Size


def add_small(name: str = "mine", overwrite: bool = False, seed: int = 3) -> Model:
    genotype = resolve_model(DEFAULT_MODEL).genotype
    weights = seeded_weights(plan(genotype, Size(64, 64)), seed)
    return add_model(name, genotype, CAMVID, Size(360, 480), weights, "a test", overwrite)


def test_every_zoo_model_resolves_and_is_consistent() -> None:
    models = list_models()
    assert {m.name for m in models} >= {
        "fasterseg-camvid",
        "fasterseg-student",
        "fasterseg-teacher",
    }
    for model in models:
        assert len(model.labels) == model.genotype.num_classes
        assert model.licence
        assert model.about


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(
        UnknownNameError, match=r"fasterseg-camvid.*Did you mean 'fasterseg-student'"
    ):
        resolve_model("fasterseg-studnt")


@pytest.mark.parametrize("name", ["x" * 300, "\0", "a\0b", "~", "..", "/"])
def test_names_that_are_no_file_names_are_unknown(name: str) -> None:
    with pytest.raises(UnknownNameError):
        resolve_model(name)


def test_an_imported_model_is_a_name_like_any_other() -> None:
    add_small()
    model = resolve_model("mine")
    assert model.trained
    assert model.origin == "imported"
    assert model.labels == CAMVID
    assert model.train_size == Size(360, 480)
    assert "mine" in [m.name for m in list_models()]
    network = plan(model.genotype, Size(64, 64))
    expected = seeded_weights(network, 3)
    stored = model.load_weights(network)
    assert all(np.array_equal(stored[name], expected[name]) for name in expected)


def test_the_folder_of_a_model_is_a_model_too() -> None:
    add_small()
    by_folder = resolve_model(str(models_folder() / "mine"))
    assert by_folder.source_sha256 == resolve_model("mine").source_sha256


def test_a_folder_here_does_not_take_the_name_of_a_known_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_small()
    shutil.copytree(models_folder() / "mine", tmp_path / DEFAULT_MODEL)
    monkeypatch.chdir(tmp_path)
    assert resolve_model(DEFAULT_MODEL).origin == "zoo"
    assert resolve_model(f"./{DEFAULT_MODEL}").name == "mine"


def test_importing_over_a_model_needs_overwrite() -> None:
    first = add_small().source_sha256
    with pytest.raises(OutputExistsError, match="--overwrite"):
        add_small()
    assert add_small(overwrite=True, seed=4).source_sha256 != first


@pytest.mark.parametrize("name", ["", "a/b", "../x", "fasterseg-camvid", ".hidden", "x" * 80])
def test_names_that_cannot_be_are_refused(name: str) -> None:
    with pytest.raises(UsageError):
        add_small(name)
    assert not models_folder().exists() or not any(models_folder().iterdir())


def test_a_removed_model_is_gone() -> None:
    add_small()
    remove_model("mine")
    with pytest.raises(UnknownNameError):
        resolve_model("mine")
    with pytest.raises(UnknownNameError):
        remove_model("mine")
    with pytest.raises(UsageError, match="stays"):
        remove_model("fasterseg-camvid")


def test_a_genotype_file_takes_the_weights_beside_it(tmp_path: Path) -> None:
    file = tmp_path / "net.json"
    shutil.copy(ZOO / "fasterseg-camvid.json", file)
    untrained = resolve_model(str(file))
    assert not untrained.trained
    network = plan(untrained.genotype, Size(64, 64))
    save_weights(tmp_path / "net.safetensors", seeded_weights(network, 7))
    trained = resolve_model(str(file))
    assert trained.trained
    assert trained.source_sha256 != untrained.source_sha256


@pytest.mark.parametrize(
    "text", ["", "{", "[1]", '{"name": "x"}', '{"genotype": {}}', '{"genotype": 3, "schema": 1}']
)
def test_files_that_are_no_models_are_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "net.json"
    file.write_text(text)
    with pytest.raises(ConfigError, match=r"net\.json"):
        resolve_model(str(file))


def test_a_card_of_a_newer_schema_asks_for_an_upgrade() -> None:
    add_small()
    card = models_folder() / "mine" / "model.json"
    card.write_text(json.dumps(json.loads(card.read_text()) | {"schema": 2}))
    with pytest.raises(ConfigError, match="Upgrade"):
        resolve_model("mine")


def test_lost_weights_are_named() -> None:
    add_small()
    (models_folder() / "mine" / "weights.safetensors").unlink()
    model = resolve_model("mine")
    with pytest.raises(WeightsError, match=r"weights\.safetensors"):
        model.load_weights(plan(model.genotype, Size(64, 64)))


def test_weights_whose_name_no_file_can_have_are_named() -> None:
    add_small()
    card = models_folder() / "mine" / "model.json"
    card.write_text(json.dumps(json.loads(card.read_text()) | {"weights": "w\x00"}))
    with pytest.raises(WeightsError, match=r"cannot read weights .*null"):
        _ = resolve_model("mine").source_sha256


def test_generic_labels_have_distinct_colours() -> None:
    labels = generic_labels(60)
    assert len(set(labels.palette)) == 60
