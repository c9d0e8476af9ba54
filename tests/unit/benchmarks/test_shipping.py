from __future__ import annotations

import hashlib
import importlib
import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fasterseg.arch.plan import plan
from fasterseg.errors import ConfigError
from fasterseg.graph.weights import weights_sha256
from fasterseg.runtime.model import resolve_model
from tests.unit.benchmarks.conftest import NAME, SIZE, MakeRun, files_of

pytestmark = [pytest.mark.onnx, pytest.mark.torch]

ENGINES = [
    ("onnxruntime", "fp32"), ("onnxruntime", "fp16"), ("onnxruntime", "int8"), ("torch", "fp32"),
]  # fmt: skip


@pytest.fixture
def ship(shipping: Any) -> Any:
    return importlib.import_module("ship_model").ship


def record_of(shop: Any) -> Any:
    return json.loads(shop.file(".record.json").read_text())


@pytest.fixture
def plain(shipping: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """No picture of the curves, which takes longer than all the rest."""
    monkeypatch.setattr(shipping, "draw_curves", lambda *_: False)


def test_a_run_ships_whole(shipped: Any, template: Path) -> None:
    shop, run = shipped, template / "run0"
    weights = shop.file(".safetensors").read_bytes()
    assert weights == (run / "weights.safetensors").read_bytes()
    sha256 = hashlib.sha256(weights).hexdigest()
    record, training = record_of(shop), json.loads(shop.file(".training.json").read_text())
    index = json.loads((shop.zoo / "index.json").read_text())["models"][NAME]
    assert index["sha256"] == record["sha256"] == training["sha256"] == sha256
    assert index["about"].endswith("trained from scratch")
    assert [(row["engine"], row["precision"]) for row in record["test"]] == ENGINES
    assert [row["split"] for row in record["val"]] == ["val"] * 4
    assert {row["source_sha256"] for row in record["test"]} == {resolve_model(NAME).source_sha256}
    assert {row["model"] for row in record["test"]} == {NAME}
    assert [row["engine"] for row in record["test_log"]] == [e for e, _ in ENGINES]
    assert record["runs"][0]["curve"] == [{"step": 4, "images": 8, "val_miou": 20.0}]
    assert (training["images"], training["seed"]) == (8, 1)
    (chunk,) = training["chunks"]
    assert (chunk["kept"], chunk["images"], chunk["val_before"]) == (True, 8, None)
    assert chunk["val_after"] == record["val"][0]["miou"]
    assert not shop.stage.exists()


def test_the_card_tells_engines_classes_runs_and_tests(shipped: Any) -> None:
    shop = shipped
    card, record = shop.file(".md").read_text(), record_of(shop)
    reference = record["test"][0]
    others = [
        v for k, v in reference["per_class_iou"].items() if k != "Bicyclist" and v is not None
    ]
    without = sum(others) / len(others)
    low, high = reference["miou_interval_95"]
    assert (
        f"| onnxruntime | fp32 | {reference['miou']:.2f} | +0.00 | {low:.1f} to {high:.1f} " in card
    )
    assert f"without Bicyclist (0.2 % of the pixels) | {without:.2f} %" in card
    assert "| torch | fp32 |" in card
    assert "8 crops of 64x64 (4 steps of 2)" in card
    assert "at step 2 settings changed: images: 6 -> 8" in card
    assert card.count(f"`{reference['source_sha256'][:12]}`") == len(ENGINES)


def test_the_curves_ship_with_the_card(shipped: Any) -> None:
    pytest.importorskip("matplotlib")
    assert shipped.file(".curves.png").read_bytes().startswith(b"\x89PNG")
    assert f"]({NAME}.curves.png)" in shipped.file(".md").read_text()


@pytest.mark.usefixtures("plain")
def test_runs_of_earlier_versions_ship(
    ship: Any, shop: Any, make_run: MakeRun, camvid_root: Path
) -> None:
    run = make_run()
    card = json.loads((run / "model.json").read_text())
    settings = card["training"]["settings"]
    for key in ("role", "augment_on", "frozen_norm", "log_images"):
        del settings[key]
    del settings["augment"]["scales"], settings["loss"]["distill_kind"]
    (run / "model.json").write_text(json.dumps(card))
    ship(shop, run, camvid_root)
    assert record_of(shop)["runs"][0]["training"]["settings"] == settings


@pytest.mark.usefixtures("plain")
def test_a_record_of_the_first_form_keeps_its_test_log(
    shipping: Any, ship: Any, shop: Any, make_run: MakeRun, camvid_root: Path
) -> None:
    before = {"evaluated": "e", "source_sha256": "s", "precision": "fp32", "miou": 1.0}
    old = {
        "test_log": [before],
        "sha256": "x",
        "training": {"images": 3},
        "curve": [],
        "changes": [],
    }
    shop.file(".record.json").write_text(json.dumps(old))
    assert shipping.read_record(shop)["runs"] == [
        {"training": {"images": 3}, "curve": [], "changes": []}
    ]
    old_log = {key: value for key, value in old.items() if key == "test_log"}
    shop.file(".record.json").write_text(json.dumps(old_log))
    ship(shop, make_run(), camvid_root)
    log = record_of(shop)["test_log"]
    assert log[0] == before
    assert len(log) == 1 + len(ENGINES)
    assert "| e | `s` | onnxruntime | fp32 | 1.00 |" in shop.file(".md").read_text()


@pytest.mark.usefixtures("plain")
def test_a_kill_while_files_are_put_in_place_is_made_good(
    shipping: Any, shop: Any, make_run: MakeRun, camvid_root: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    run = make_run()
    shipping.prepare(shop, run, camvid_root, [], {"schema": 1})
    shutil.copytree(tmp_path, tmp_path.parent / f"{tmp_path.name}-kept")
    kept = tmp_path.parent / f"{tmp_path.name}-kept"
    assert shipping.finish(shop)
    whole = files_of(shop.zoo)
    write, interrupted = shipping.write_atomic, 0
    for allowed in range(8):
        for folder in ("zoo", "work"):
            shutil.rmtree(tmp_path / folder)
            shutil.copytree(kept / folder, tmp_path / folder)
        left = iter(range(allowed))

        def killed(path: Path, data: bytes, left: Any = left) -> None:
            if next(left, None) is None:
                raise KeyboardInterrupt
            write(path, data)

        with monkeypatch.context() as patch:
            patch.setattr(shipping, "write_atomic", killed)
            try:
                shipping.finish(shop)
            except KeyboardInterrupt:
                interrupted += 1
        shipping.finish(shop)
        assert files_of(shop.zoo) == whole
        assert not shipping.finish(shop)
    assert interrupted == 6


@pytest.mark.usefixtures("plain")
def test_a_kill_between_evaluations_tests_nothing_twice_and_forgets_no_test(
    shipping: Any, ship: Any, shop: Any, make_run: MakeRun, camvid_root: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    run, evaluate = make_run(), shipping.evaluate
    seen: list[tuple[str, ...]] = []

    def counted(shop: Any, model: str, root: Path, split: str, *engine: str) -> Any:
        if len(seen) == 6:
            seen.append(("killed",))
            raise KeyboardInterrupt
        seen.append((split, *engine))
        return evaluate(shop, model, root, split, *engine)

    monkeypatch.setattr(shipping, "evaluate", counted)
    with pytest.raises(KeyboardInterrupt):
        ship(shop, run, camvid_root)
    assert not shop.file(".safetensors").exists()
    assert len(record_of(shop)["test_log"]) == 2
    ship(shop, run, camvid_root)
    assert len(seen) == len(set(seen)) == 9
    assert len(record_of(shop)["test_log"]) == len(ENGINES)


def test_another_run_does_not_inherit_the_scores_of_an_unfinished_one(
    shipping: Any,
    shop: Any,
    make_run: MakeRun,
    camvid_root: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shipping, "ENGINES", ENGINES[:1])
    first = shipping.stage_model(shop, make_run(0), camvid_root)
    rows = shipping.evaluations(shop, first, camvid_root, "val")
    second = shipping.stage_model(shop, make_run(1), camvid_root)
    others = shipping.evaluations(shop, second, camvid_root, "val")
    assert {r["source_sha256"] for r in rows}.isdisjoint(r["source_sha256"] for r in others)


@pytest.mark.usefixtures("plain")
def test_files_of_the_version_before_do_not_stay_beside_new_weights(
    ship: Any, shipped: Any, make_run: MakeRun, camvid_root: Path
) -> None:
    shipped.file(".curves.png").write_bytes(b"old")
    ranges = shipped.file(".ranges.json").read_bytes()
    ship(shipped, make_run(1), camvid_root)
    assert not shipped.file(".curves.png").exists()
    assert shipped.file(".ranges.json").read_bytes() != ranges
    model = resolve_model(NAME)
    network = plan(model.genotype, SIZE)
    held = model.load_ranges().weights_sha256
    assert held == weights_sha256(network, model.load_weights(network))


def test_weights_and_training_file_of_different_versions_are_refused(
    shipping: Any, shipped: Any
) -> None:
    shipped.file(".safetensors").write_bytes(b"others")
    with pytest.raises(ConfigError, match="one commit"):
        shipping.read_training(shipped)


def test_without_a_training_file_the_record_says_what_was_seen(shipping: Any, shipped: Any) -> None:
    written = shipping.read_training(shipped)
    shipped.file(".training.json").unlink()
    derived = shipping.read_training(shipped)
    assert {k: derived[k] for k in derived if k != "chunks"} == {
        k: written[k] for k in written if k != "chunks"
    }
    assert derived["chunks"][0]["val_after"] == written["chunks"][0]["val_after"]


@pytest.mark.parametrize(
    ("committed", "words"),
    [("a\n", "1 of at most 3"), ("a\nb\n", "the last"), ("a\nb\nc\n", "NO MORE")],
)
def test_the_number_of_committed_versions_is_told(
    shipping: Any, shop: Any, monkeypatch: pytest.MonkeyPatch, committed: str, words: str
) -> None:
    said: list[str] = []
    monkeypatch.setattr(
        shipping.subprocess, "run", lambda *_, **__: SimpleNamespace(stdout=committed)
    )
    shipping.warn_of_versions(shop, said.append)
    assert words in said[0]
