"""What the official Cityscapes evaluation makes of our files equals our own figures."""

from __future__ import annotations

import copy
import hashlib
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from fasterseg.bench.accuracy import score
from fasterseg.bench.submission import check_target, result_name, write_submission
from fasterseg.datasets import DATASETS, Pair
from fasterseg.errors import OutputExistsError, SourceError, UsageError
from fasterseg.graph.emit import EmitOptions
from fasterseg.labels import CITYSCAPES
from fasterseg.runtime.base import EngineSpec
from fasterseg.runtime.model import resolve_model
from fasterseg.runtime.store import describe
from fasterseg.types import Size
from tests.shared import shared

SPEC = DATASETS["cityscapes"]
NATIVE = Size(1024, 2048)
TRUCK = CITYSCAPES.classes.index("truck")


class Recites:
    """An engine that gives prepared class maps, whatever it is shown."""

    backend = "recited"
    device = "cpu"
    tail = "none"

    def __init__(self, maps: Sequence[NDArray[np.uint8]], model: str = "fasterseg-student") -> None:
        size = Size(*maps[0].shape)
        self.spec: EngineSpec = describe(resolve_model(model), size, EmitOptions())
        self._next = iter(maps)

    def run(self, frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return next(self._next)[None]

    def close(self) -> None:
        pass


def official() -> Any:
    """The script behind the server; skips where it is not installed."""
    reason = "cityscapesscripts is not installed: pip install cityscapesscripts"
    return pytest.importorskip(
        "cityscapesscripts.evaluation.evalPixelLevelSemanticLabeling", reason=reason
    )


def official_scores(folder: Path, pairs: Sequence[Pair]) -> dict[str, Any]:
    """The result of the official script on a folder: pixels only, instances left aside."""
    script = official()
    args = copy.copy(script.args)
    args.quiet, args.JSONOutput, args.evalInstLevelScore = True, False, False
    args.predictionPath, args.predictionWalk = str(folder), None
    truths = [str(pair.label) for pair in pairs]
    found = [script.getPrediction(args, truth) for truth in truths]
    scores: dict[str, Any] = script.evaluateImgLists(found, truths, args)
    return scores


def blurred(pair: Pair, number: int) -> NDArray[np.uint8]:
    """The truth, shifted by a few pixels; no class right, no class wrong everywhere."""
    truth = SPEC.read_label(pair)
    shifted = np.roll(truth, (2 + number % 2, 3), (0, 1))
    return np.where(shifted == 255, number, shifted).astype(np.uint8)


def real_pairs() -> list[Pair]:
    root = shared("data/cityscapes-mini")
    return [*SPEC.pairs(root, "train"), *SPEC.pairs(root, "val")]


@pytest.mark.parametrize("extra", [None, TRUCK], ids=["absent", "only predicted"])
def test_the_official_script_gives_our_scores_on_real_pairs(
    extra: int | None, tmp_path: Path
) -> None:
    official()
    pairs = real_pairs()
    if extra is not None:
        pairs = pairs[-1:]
    maps = [blurred(pair, number) for number, pair in enumerate(pairs)]
    if extra is not None:
        maps[0][500:600, 500:600] = extra
    ours = score(Recites(maps), SPEC, "train", pairs).matrix
    made = write_submission(Recites(maps), "train", pairs, tmp_path / "results")
    theirs = official_scores(made.folder, pairs)
    iou = dict(zip(CITYSCAPES.classes, ours.per_class_iou, strict=True))
    for name, value in iou.items():
        np.testing.assert_allclose(value, theirs["classScores"][name], atol=1e-6)
    assert ours.miou == pytest.approx(theirs["averageScoreClasses"], abs=1e-6)
    present = ours.counts.sum(1) > 0
    shown = ours.per_class_iou[present]
    assert ((shown > 0) & (shown < 1)).all(), "a comparison of 0 and 1 shows little"
    if extra is None:
        assert present.sum() == 16
        assert np.isnan(iou["truck"])
    else:
        assert iou["truck"] == theirs["classScores"]["truck"] == 0


def test_class_order_ids_and_colours_are_the_official_ones() -> None:
    labels = pytest.importorskip("cityscapesscripts.helpers.labels").labels
    trained = sorted((x for x in labels if 0 <= x.trainId < 255), key=lambda x: x.trainId)
    assert tuple(label.name for label in trained) == CITYSCAPES.classes
    assert tuple(label.id for label in trained) == CITYSCAPES.source_ids
    assert tuple(label.color for label in trained) == CITYSCAPES.palette


def write_test_split(root: Path, size: Size = NATIVE, count: int = 2) -> list[Pair]:
    """Pictures in the official layout, without any label."""
    folder = root / "leftImg8bit" / "test" / "berlin"
    folder.mkdir(parents=True)
    for number in range(count):
        path = folder / f"berlin_{number:06}_000019_leftImg8bit.png"
        cv2.imwrite(str(path), np.zeros((*size, 3), np.uint8))
    return SPEC.pairs(root, "test")


def striped() -> NDArray[np.uint8]:
    """A class map with every class."""
    return np.broadcast_to(np.arange(256, dtype=np.uint8) // 14, (128, 256)).copy()


def test_a_split_without_labels_becomes_label_ids_of_full_size(tmp_path: Path) -> None:
    pairs = write_test_split(tmp_path / "cityscapes")
    seen: list[tuple[int, int]] = []
    made = write_submission(
        Recites([striped(), striped()[:, ::-1].copy()]),
        "test",
        pairs,
        tmp_path / "results",
        on_image=lambda done, total: seen.append((done, total)),
    )
    names = [f"berlin_{number:06}_000019_leftImg8bit_labelIds.png" for number in range(2)]
    assert sorted(path.name for path in made.folder.iterdir()) == names
    first, second = (cv2.imread(str(made.folder / name), cv2.IMREAD_UNCHANGED) for name in names)
    assert first is not None
    assert second is not None
    assert first.shape == NATIVE
    assert first.dtype == np.uint8
    np.testing.assert_array_equal(np.unique(first), sorted(CITYSCAPES.source_ids))
    assert (first[0, 0], first[0, -1]) == (7, 33)
    assert (second[0, 0], second[0, -1]) == (33, 7)
    assert seen == [(1, 2), (2, 2)]


def test_the_zip_holds_the_same_files_and_is_the_same_each_time(tmp_path: Path) -> None:
    pairs = write_test_split(tmp_path / "cityscapes")
    made = [
        write_submission(Recites([striped()] * 2), "test", pairs, tmp_path / name / "results")
        for name in ("once", "again")
    ]
    with zipfile.ZipFile(made[0].archive) as packed:
        assert packed.testzip() is None
        for name in packed.namelist():
            assert packed.read(name) == (made[0].folder / name).read_bytes()
        assert len(packed.namelist()) == 2
    assert made[0].archive == tmp_path / "once" / "results.zip"
    assert made[0].archive.read_bytes() == made[1].archive.read_bytes()
    assert made[0].sha256 == hashlib.sha256(made[0].archive.read_bytes()).hexdigest()
    assert [path.name for path in (tmp_path / "once").glob(".*")] == []


def test_other_classes_are_refused(tmp_path: Path) -> None:
    pairs = write_test_split(tmp_path / "cityscapes", count=1)
    engine = Recites([striped()], "fasterseg-camvid")
    with pytest.raises(UsageError, match="11 classes of camvid; the server scores the 19"):
        write_submission(engine, "test", pairs, tmp_path / "results")
    assert not (tmp_path / "results").exists()


def test_pictures_of_another_size_are_refused(tmp_path: Path) -> None:
    pairs = write_test_split(tmp_path / "cityscapes", Size(128, 256), count=1)
    with pytest.raises(SourceError, match=r"128x256.*1024x2048"):
        write_submission(Recites([striped()]), "test", pairs, tmp_path / "results")


def test_flip_needs_logits(tmp_path: Path) -> None:
    pairs = write_test_split(tmp_path / "cityscapes", count=1)
    with pytest.raises(UsageError, match="--engine torch"):
        write_submission(Recites([striped()]), "test", pairs, tmp_path / "r", flip=True)


@pytest.mark.parametrize(
    "name", ["street.png", "a_b_000019_leftImg8bit.png", "bonn_000000_000019.png"]
)
def test_pictures_that_the_server_could_not_tell_are_refused(name: str) -> None:
    with pytest.raises(SourceError, match="CITY_SEQUENCE_FRAME"):
        result_name(Path("leftImg8bit") / name)


def test_results_are_kept_unless_they_may_be_replaced(tmp_path: Path) -> None:
    pairs = write_test_split(tmp_path / "cityscapes", count=1)
    folder = tmp_path / "results"
    write_submission(Recites([striped()]), "test", pairs, folder)
    with pytest.raises(OutputExistsError, match="--overwrite"):
        check_target(folder, pairs, overwrite=False)
    write_submission(Recites([striped()]), "test", pairs, folder, overwrite=True)
    for path in folder.iterdir():
        path.unlink()
    with pytest.raises(OutputExistsError, match=r"results\.zip"):
        check_target(folder, pairs, overwrite=False)


@pytest.mark.parametrize("stray", ["old.png", "sub/berlin_000000_000019_leftImg8bit_labelIds.png"])
def test_results_never_lie_beside_other_pngs(stray: str, tmp_path: Path) -> None:
    pairs = write_test_split(tmp_path / "cityscapes", count=1)
    (tmp_path / "results" / "sub").mkdir(parents=True)
    (tmp_path / "results" / stray).write_bytes(b"")
    with pytest.raises(UsageError, match="1 other PNGs"):
        check_target(tmp_path / "results", pairs, overwrite=True)


@pytest.mark.parametrize("name", ["", ".", "..", "file"])
def test_a_place_that_is_no_folder_is_refused(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="no folder"):
        check_target(Path(name), [], overwrite=False)
