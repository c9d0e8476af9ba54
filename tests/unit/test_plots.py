"""Pictures of figures: legible, the same each time, and nothing global is touched."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from fasterseg.errors import OutputError
from fasterseg.labels import CAMVID, CITYSCAPES
from tests.shared import ROOT

mpl = pytest.importorskip("matplotlib")
plots = pytest.importorskip("fasterseg.plots")

COUNTS = np.array([[90, 9, 1], [0, 40, 0], [0, 0, 0]])
CLASSES = ("road", "car", "sky")
RECORDS: list[dict[str, Any]] = [
    {"step": 25, "images": 300, "images_per_s": 7.0, "total": 3.1, "head": 2.2, "lr": 0.0002},
    {"step": 50, "images": 600, "images_per_s": 7.0, "total": 2.4, "head": 1.7, "lr": 0.0006},
    {"step": 50, "images": 600, "val": {"miou": 45.4, "per_class_iou": [45.4]}},
    {"step": 50, "note": "settings changed: batch: 12 -> 24"},
    {"step": 37, "images": 900, "images_per_s": 7.0, "total": 2.0, "head": 1.5, "lr": 0.0004},
    {"step": 37, "images": 900, "val": {"miou": 50.1, "per_class_iou": [50.1]}},
]


def texts(monkeypatch: pytest.MonkeyPatch) -> tuple[list[str], list[Any]]:
    """What the next figure shows: its texts, and its axes."""
    shown: list[str] = []
    panels: list[Any] = []
    save = plots._save

    def look(figure: Any, path: Path) -> None:
        shown.extend(found.get_text() for found in figure.findobj(mpl.text.Text))
        panels.extend(figure.axes)
        save(figure, path)

    monkeypatch.setattr(plots, "_save", look)
    return shown, panels


def test_matrix_shows_rows_in_percent_of_the_true_class(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown, panels = texts(monkeypatch)
    plots.confusion_matrix(tmp_path / "a.png", COUNTS, CLASSES, "a title")
    cells = {
        (round(text.get_position()[1]), round(text.get_position()[0])): text.get_text()
        for text in panels[0].texts
        if text.get_position()[0] < len(CLASSES)
    }
    assert cells == {(0, 0): "90", (0, 1): "9.0", (0, 2): "1.0", (1, 1): "100"}
    assert "a title" in shown
    assert set(CLASSES) <= set(shown)


def test_matrix_shows_iou_and_share_of_each_class(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown, _ = texts(monkeypatch)
    counts = COUNTS.copy()
    counts[0, 2] = 0
    plots.confusion_matrix(tmp_path / "a.png", counts, CLASSES, "")
    assert {"90.9", "81.6", "absent"} <= set(shown)  # 90/99, 40/49, never met
    assert {"71.22", "28.78", "0.00"} <= set(shown)  # of 139 pixels


def test_a_class_almost_always_right_is_not_shown_as_always_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown, _ = texts(monkeypatch)
    counts = np.array([[9999, 1], [0, 5]])
    plots.confusion_matrix(tmp_path / "a.png", counts, ("a", "b"), "")
    assert "99" in shown
    assert shown.count("100") == 1


@pytest.mark.parametrize("labels", [CAMVID, CITYSCAPES], ids=lambda labels: labels.name)
def test_every_number_lies_inside_its_cell(
    labels: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, panels = texts(monkeypatch)
    counts = np.full((len(labels), len(labels)), 1000)
    counts[np.diag_indices(len(labels))] = 10**6
    plots.confusion_matrix(tmp_path / "a.png", counts, labels.classes, "")
    [axes] = panels
    left, right = (axes.transData.transform((x, 0))[0] for x in (0, 1))
    for text in axes.texts:
        if text.get_position()[0] < len(labels):
            assert text.get_window_extent().width < right - left
    names = [text.get_window_extent() for text in axes.get_yticklabels() if text.get_text()]
    assert not any(a.overlaps(b) for a, b in itertools.pairwise(names))
    image = cv2.imread(str(tmp_path / "a.png"))
    assert image is not None
    assert 800 < image.shape[0] < 1500


def test_counts_and_names_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="2 names for 3 classes"):
        plots.confusion_matrix(tmp_path / "a.png", COUNTS, ("a", "b"), "")


def test_curves_show_losses_rate_and_scores_over_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown, panels = texts(monkeypatch)
    plots.curves(tmp_path / "a.png", RECORDS, "a run")
    losses, rate, scores = panels
    drawn = {line.get_label(): line.get_xydata().tolist() for line in losses.get_lines()}
    assert drawn["total"] == [[300, 3.1], [600, 2.4], [900, 2.0]]
    assert drawn["head"] == [[300, 2.2], [600, 1.7], [900, 1.5]]
    assert "images_per_s" not in drawn
    assert rate.get_lines()[0].get_xydata().tolist() == [[300, 2e-4], [600, 6e-4], [900, 4e-4]]
    assert scores.get_lines()[0].get_xydata().tolist() == [[600, 45.4], [900, 50.1]]
    assert {"a run", "50.1", "images seen"} <= set(shown)


def test_a_note_is_a_line_where_it_happened_and_a_text_below(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown, panels = texts(monkeypatch)
    plots.curves(tmp_path / "a.png", RECORDS, "")
    assert "1  settings changed: batch: 12 -> 24" in shown
    for axes in panels:
        assert [600, 600] in [list(line.get_xdata()) for line in axes.get_lines()]


@pytest.mark.parametrize("count", [0, 1, 2])
def test_a_run_that_has_only_begun_is_drawn(count: int, tmp_path: Path) -> None:
    plots.curves(tmp_path / "a.png", RECORDS[:count], "begun")
    assert cv2.imread(str(tmp_path / "a.png")) is not None


def test_the_same_figures_give_the_same_file_whatever_the_users_style(tmp_path: Path) -> None:
    for name in "ab":
        plots.curves(tmp_path / f"{name}.png", RECORDS, "a run")
        plots.confusion_matrix(tmp_path / f"{name}m.png", COUNTS, CLASSES, "a title")
        mpl.rcParams["font.size"] = 20
    mpl.rcdefaults()
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert (tmp_path / "am.png").read_bytes() == (tmp_path / "bm.png").read_bytes()


def test_no_style_and_no_window_system_is_left_behind(tmp_path: Path) -> None:
    code = (
        "import json, sys, matplotlib as mpl\n"
        "mpl.rcParams['font.size'] = 21\n"
        "def style():  # looking at the backend would choose one\n"
        "    return {k: mpl.rcParams[k] for k in mpl.rcParams if k != 'backend'}\n"
        "before = style()\n"
        "from pathlib import Path\n"
        "from fasterseg.plots import curves\n"
        "curves(Path(sys.argv[1]), json.loads(sys.argv[2]), 'a')\n"
        "assert style() == before\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "a.png"), json.dumps(RECORDS)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_place_that_cannot_be_written_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot"):
        plots.curves(tmp_path / "file" / "a.png", RECORDS, "")


HUNDRED = tuple(float(n) for n in range(101))


@pytest.mark.parametrize(
    ("draw", "arguments", "shown"),
    [
        ("strips", ({"512x1024": {"fast": HUNDRED, "slow": HUNDRED}}, "ms"), ["fast", "slow"]),
        ("lines", ({"fast": {"512x1024": 9.0, "1024x2048": 2.0}}, "FPS"), ["1024x2048", "fast"]),
        ("scatter", ([("one", 10.0, 49.0), ("two", 40.0, 50.0)], "ms", "mIoU"), ["one", "two"]),
        ("bars", ({"row": {"decode": 1.0, "engine": 2.0}}, "ms"), ["row", "decode", "engine"]),
    ],
)
def test_drawings_for_pages_show_their_names_in_the_pages_ink(
    draw: str, arguments: tuple[Any, ...], shown: list[str]
) -> None:
    before = dict(mpl.rcParams)
    svg = getattr(plots, draw)(*arguments)
    assert svg == getattr(plots, draw)(*arguments)
    assert svg.startswith("<svg")
    assert "currentColor" in svg
    assert plots.INK not in svg
    assert "<metadata>" not in svg
    assert all(f">{text}</text>" in svg for text in shown)
    assert dict(mpl.rcParams) == before
