from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from fasterseg.datasets import DATASETS, known, streets
from fasterseg.types import Size
from tests.tiny_data import SIZE, own_dataset, write_camvid, write_png
from tests.unit.cli.conftest import Run


@pytest.fixture
def camvid(tmp_path: Path) -> Path:
    return write_camvid(tmp_path / "camvid")


def test_sound_data_passes_with_a_table_of_class_shares(run: Run, camvid: Path) -> None:
    outcome = run("search", "data", "check", "--dataset", "camvid", "--data", "camvid")
    assert outcome.code == 0
    rows = {line[:13].strip(): line[13:].split() for line in outcome.stdout.splitlines()[1:]}
    assert rows[""] == ["train", "val", "test"]
    assert rows["pairs"] == ["5", "2", "2"]
    assert rows["pictures, HxW"] == ["80x112"] * 3
    classes = DATASETS["camvid"].labels.classes
    shares = [[float(x.replace("-", "0")) for x in rows[name]] for name in classes]
    assert np.sum(shares, axis=0) == pytest.approx([100, 100, 100], abs=0.06)
    assert "camvid in camvid is sound" in outcome.stderr


def test_all_problems_of_bad_data_are_listed(run: Run, camvid: Path) -> None:
    write_png(camvid / "trainannot/0.png", np.full(SIZE, 99, np.uint8))
    (camvid / "val/1.png").unlink()
    outcome = run("search", "data", "check", "--dataset", "camvid", "--data", "camvid")
    assert outcome.code == 3
    assert "first in camvid/trainannot/0.png: id 99 is no class" in outcome.stderr
    assert "val: cannot read" in outcome.stderr
    assert "error: 2 problems in camvid in camvid. Mend them" in outcome.stderr


def test_many_problems_are_cut_on_screen_and_whole_in_the_report(run: Run, camvid: Path) -> None:
    lines = [f"train/{i}.png trainannot/0.png\n" for i in range(100, 150)]
    (camvid / "train.txt").write_text("".join(lines))
    outcome = run(
        "search", "data", "check", "--dataset", "camvid", "--data", "camvid", "--json", "r.json"
    )
    assert outcome.code == 3
    assert outcome.stderr.count("cannot read") == 40
    assert "50 problems in camvid in camvid; the first 40 are above" in outcome.stderr
    assert len(json.loads(Path("r.json").read_text())["problems"]) == 50


def test_the_report_on_stdout_is_nothing_but_json(run: Run, camvid: Path) -> None:
    outcome = run(
        "search", "data", "check", "--dataset", "camvid", "--data", "camvid",
        "--splits", "val, test", "--json", "-",
    )  # fmt: skip
    facts = json.loads(outcome.stdout)
    assert facts["sound"]
    assert list(facts["splits"]) == ["val", "test"]


def test_an_own_data_set_is_checked_by_its_file_alone(run: Run, tmp_path: Path) -> None:
    own_dataset(tmp_path, train=2, val=1)
    outcome = run("search", "data", "check", "--dataset", "yard.toml")
    assert outcome.code == 0, outcome.stderr
    assert outcome.stdout.splitlines()[1].split() == ["train", "val"]
    assert "yard in yard is sound" in outcome.stderr
    Path("moved").mkdir()
    outcome = run("search", "data", "check", "--dataset", "yard.toml", "--data", "moved")
    assert outcome.code == 3
    assert "moved/images/train/*.jpg matches no pictures" in outcome.stderr


def test_rendered_streets_need_no_folder(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    small = {**DATASETS, "streets": streets({"train": 1, "val": 1}, Size(64, 96))}
    monkeypatch.setattr(known, "DATASETS", small)
    outcome = run("search", "data", "check", "--dataset", "streets")
    assert outcome.code == 0
    assert "streets is sound" in outcome.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--dataset", "camvit"), "Did you mean 'camvid'? Or give a .toml"),
        (("--dataset", "camvid"), "give --data FOLDER"),
        (("--dataset", "camvid", "--data", "camvid", "--splits", "tset"), "Did you mean 'test'?"),
        (("--dataset", "nope.toml"), "cannot read nope.toml"),
    ],
)
def test_wrong_options_name_the_remedy(
    run: Run, camvid: Path, arguments: tuple[str, ...], message: str
) -> None:
    outcome = run("search", "data", "check", *arguments)
    assert outcome.code == 2
    assert message in outcome.stderr
