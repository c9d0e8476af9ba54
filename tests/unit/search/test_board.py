from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch")
accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")

from fasterseg.arch.genotype import Genotype  # noqa: E402
from fasterseg.arch.plan import plan  # noqa: E402
from fasterseg.datasets import DATASETS  # noqa: E402
from fasterseg.errors import OutputError  # noqa: E402
from fasterseg.labels import CAMVID  # noqa: E402
from fasterseg.nn.network import Network  # noqa: E402
from fasterseg.search.board import FOLDER, Board, available, show_panels  # noqa: E402
from fasterseg.search.journal import Journal  # noqa: E402
from fasterseg.types import Size  # noqa: E402
from tests.tiny_data import SIZE  # noqa: E402

pytestmark = pytest.mark.torch

IOU = [50.0, None, *[10.0 + i for i in range(9)]]


def progress(step: int, loss: float = 1.0) -> dict[str, Any]:
    terms = {"total": loss, "head": 0.7, "aux.16": 0.2, "aux.32": 0.1, "distill": 0.05}
    speed = {"images_per_s": 12.5, "lr": 0.01, "grad_norm": 3.0}
    return {"step": step, "images": 2 * step, "seconds": 4.0, **speed, **terms}


def score(step: int) -> dict[str, Any]:
    val = {"miou": 42.0, "pixel_accuracy": 80.0, "per_class_iou": IOU}
    return {"step": step, "images": 2 * step, "val": val}


def events(folder: Path) -> Any:
    read = accumulator.EventAccumulator(str(folder / FOLDER))
    read.Reload()
    return read


def scalars(folder: Path, tag: str) -> list[tuple[int, Any]]:
    return [(e.step, pytest.approx(e.value)) for e in events(folder).Scalars(tag)]


def test_records_of_the_journal_appear_under_the_fixed_tags(tmp_path: Path) -> None:
    assert available()
    journal, board = Journal(tmp_path), Board(tmp_path, CAMVID)
    journal.listeners.append(board)
    for record in (progress(25, 2.0), progress(50), score(50), {"step": 50, "note": "a note"}):
        journal.write(record)
    board.close()
    losses = {f"loss/{name}" for name in ("total", "head", "aux.16", "aux.32", "distill")}
    scored = {f"miou/{n}" for n, v in zip(CAMVID.classes, IOU, strict=True) if v is not None}
    tags = {*losses, *scored, "miou/val", "lr", "speed/images_per_s"}
    assert set(events(tmp_path).Tags()["scalars"]) == tags
    assert scalars(tmp_path, "loss/total") == [(25, 2.0), (50, 1.0)]
    assert scalars(tmp_path, "loss/aux.16") == [(25, 0.2), (50, 0.2)]
    assert scalars(tmp_path, "lr") == [(25, 0.01), (50, 0.01)]
    assert scalars(tmp_path, "speed/images_per_s") == [(25, 12.5), (50, 12.5)]
    assert scalars(tmp_path, "miou/val") == [(50, 42.0)]
    assert scalars(tmp_path, f"miou/{CAMVID.classes[0]}") == [(50, 50.0)]


def test_epochs_of_a_co_search_appear_under_the_fixed_tags(tmp_path: Path) -> None:
    journal, board = Journal(tmp_path), Board(tmp_path, CAMVID)
    journal.listeners.append(board)
    names = ("8", "16", "32", "8_32", "16_32")
    logits = {"alpha": [[[0.0, 1.0]]], "beta": [[[0.5, 0.5]]], "ratio": [[[0.1, 2.0]]]}
    step = {"latency_ms": 5.0, "multiplier": 0.2, "logits_student": 1.0}
    journal.write({**progress(10), **step})
    journal.write(
        {
            "step": 10,
            "epoch": 1,
            "entropy": {"student": 0.9, "teacher": 0.8},
            "margin": {"student": 0.1, "teacher": 0.2},
            "latency_ms": 4.0,
            "miou": {name: 30.0 for name in names},
            "teacher_miou": {name: 40.0 for name in names},
            "gap": {"16_32": 1.5},
            "logits": {"student": logits, "teacher": logits},
        }
    )
    board.close()
    tags = events(tmp_path).Tags()
    assert {f"miou/{name}" for name in names} <= set(tags["scalars"])
    assert {"loss/logits_student", "arch/margin_student", "gap/16_32"} <= set(tags["scalars"])
    assert scalars(tmp_path, "arch/entropy") == [(10, 0.9)]
    assert scalars(tmp_path, "latency/predicted_ms") == [(10, 4.0)]
    assert scalars(tmp_path, "latency/expected_ms") == [(10, 5.0)]
    kinds = ("alpha", "beta", "ratio")
    shown = {f"{kind}/{name}" for kind in kinds for name in ("student", "teacher")}
    assert set(tags["histograms"]) == shown


@pytest.mark.parametrize("closed", [True, False])
def test_a_resumed_run_shows_every_step_once(tmp_path: Path, closed: bool) -> None:
    killed = Board(tmp_path, CAMVID)
    for step in (25, 50, 75):
        killed.write(progress(step, 2.0))
    killed.write(score(75))
    if closed:
        killed.close()
    journal, board = Journal(tmp_path), Board(tmp_path, CAMVID)
    journal.listeners.append(board)
    journal.trim(50)
    for step in (75, 100):
        journal.write(progress(step, 1.0))
    journal.write(score(100))
    board.close()
    assert scalars(tmp_path, "loss/total") == [(25, 2.0), (50, 2.0), (75, 1.0), (100, 1.0)]
    assert scalars(tmp_path, "miou/val") == [(100, 42.0)]


def test_a_roll_back_within_a_run_takes_its_steps_back(tmp_path: Path) -> None:
    board = Board(tmp_path, CAMVID)
    for step in (25, 50):
        board.write(progress(step, 2.0))
    board.trim(25)
    board.write(progress(50, 1.0))
    board.close()
    assert scalars(tmp_path, "loss/total") == [(25, 2.0), (50, 1.0)]


def test_a_panel_is_input_truth_and_prediction_in_the_palettes_colours(tmp_path: Path) -> None:
    image = np.full((8, 6, 3), (10, 20, 30), np.uint8)
    truth = np.full((8, 6), 255, np.uint8)
    prediction = np.full((8, 6), 3, np.uint8)
    board = Board(tmp_path, CAMVID)
    board.panels(7, [image, image], [truth, truth], [prediction, truth])
    board.close()
    read = events(tmp_path)
    assert set(read.Tags()["images"]) == {"panel/0", "panel/1"}
    (event,) = read.Images("panel/0")
    shown = cv2.imdecode(np.frombuffer(event.encoded_image_string, np.uint8), cv2.IMREAD_COLOR_RGB)
    assert shown is not None
    assert (event.step, shown.shape) == (7, (8, 18, 3))
    assert shown[4, 3].tolist() == [30, 20, 10]
    assert shown[4, 9].tolist() == [0, 0, 0]
    assert shown[4, 15].tolist() == list(CAMVID.palette[3])


def test_panels_show_what_a_network_says(
    tmp_path: Path, camvid_root: Path, tiny_genotype: Genotype
) -> None:
    network = Network(plan(tiny_genotype, Size(64, 64)))
    with torch.no_grad():
        network.get_parameter("head.project.weight").zero_()
        network.get_parameter("head.project.bias").copy_(torch.arange(11.0))
    spec = DATASETS["camvid"]
    board = Board(tmp_path, CAMVID)
    show_panels(board, 3, network, spec, spec.pairs(camvid_root, "val")[:1])
    board.close()
    (event,) = events(tmp_path).Images("panel/0")
    shown = cv2.imdecode(np.frombuffer(event.encoded_image_string, np.uint8), cv2.IMREAD_COLOR_RGB)
    assert shown is not None
    assert shown.shape == (SIZE.height, 3 * SIZE.width, 3)
    assert (shown[:, 2 * SIZE.width :] == CAMVID.palette[10]).all()


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / FOLDER).write_text("a file is in the way")
    with pytest.raises(OutputError, match="cannot write"):
        Board(tmp_path, CAMVID).write(progress(1))
