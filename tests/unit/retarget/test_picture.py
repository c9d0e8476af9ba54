"""The picture of a network: nothing overlaps, labels fit their boxes, and each time it is equal."""

from __future__ import annotations

import itertools
import re
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import cv2
import pytest

from fasterseg.arch.genotype import Genotype
from fasterseg.arch.plan import plan
from fasterseg.errors import UsageError
from fasterseg.retarget.diagram import Diagram, lay_out
from tests.unit.retarget.nets import SIZE, TINY, drawn, odd, student, teacher
from tests.unit.retarget.test_diagram import table_for

pytest.importorskip("matplotlib")
pictures = pytest.importorskip("fasterseg.retarget.picture")
networks = pytest.importorskip("fasterseg.plots.networks")

NETS = [TINY, student(), teacher(), drawn(4)[2], odd(6), odd(3), odd(7)]


def diagram_of(genotype: Genotype, priced: bool = True) -> Diagram:
    return lay_out(plan(genotype, SIZE), table_for(genotype) if priced else None)


def overlap(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def extents(genotype: Genotype) -> tuple[Any, list[tuple[str, tuple[float, ...]]]]:
    """The picture, and each text with the points it covers: left, top, right, bottom."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    picture = pictures.picture(diagram_of(genotype))
    figure = networks.network_figure(picture)
    canvas: Any = FigureCanvasAgg(figure)
    canvas.draw()
    texts: list[tuple[str, tuple[float, ...]]] = []
    scale = networks.POINTS_PER_INCH / figure.dpi
    for text in figure.axes[0].texts:
        box = text.get_window_extent(canvas.get_renderer())
        if text.get_text():
            top, bottom = picture.height - box.y1 * scale, picture.height - box.y0 * scale
            texts.append((text.get_text(), (box.x0 * scale, top, box.x1 * scale, bottom)))
    return picture, texts


@pytest.mark.parametrize("genotype", NETS, ids=lambda net: net.name)
def test_nothing_overlaps_and_every_label_lies_in_its_box(genotype: Genotype) -> None:
    picture, texts = extents(genotype)
    boxes = [(b.x, b.y, b.x + b.width, b.y + b.height) for b in picture.blocks]
    assert not any(overlap(a, b) for a, b in itertools.combinations(boxes, 2))
    inside = [
        (name, box)
        for block, box in zip(picture.blocks, boxes, strict=True)
        for name in block.lines
    ]
    labels, remarks = texts[: len(inside)], texts[len(inside) :]
    for (name, box), (text, at) in zip(inside, labels, strict=True):
        assert name == text
        assert box[0] < at[0] and at[2] < box[2], (name, box, at)  # noqa: PT018
        assert box[1] < at[1] and at[3] < box[3], (name, box, at)  # noqa: PT018
    for (name, at), (other, there) in itertools.combinations(remarks, 2):
        assert not overlap(at, there), (name, other)
    for name, at in remarks:
        assert not any(overlap(at, box) for box in boxes), name
        assert at[0] >= 0 and at[2] <= picture.width, name  # noqa: PT018
        assert at[1] >= 0 and at[3] <= picture.height, name  # noqa: PT018


@pytest.mark.parametrize("genotype", NETS, ids=lambda net: net.name)
def test_lines_stay_clear_of_boxes_and_figures(genotype: Genotype) -> None:
    picture, texts = extents(genotype)
    boxes = [(b.x, b.y, b.x + b.width, b.y + b.height) for b in picture.blocks]
    numbers = [(name, at) for name, at in texts if re.fullmatch(r"\d+", name)]
    for route in picture.routes:
        for (x1, y1), (x2, y2) in itertools.pairwise(route.points):
            line = (min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2))
            assert not any(
                line[0] < box[2] - 0.01 and box[0] + 0.01 < line[2] + 0.01
                and line[1] < box[3] - 0.01 and box[1] + 0.01 < line[3] + 0.01
                for box in boxes
            )  # fmt: skip
            for name, at in numbers:
                assert not overlap(line, at), (name, line, at)


def test_boxes_tell_operator_and_price() -> None:
    diagram = diagram_of(TINY)
    blocks = pictures.picture(diagram).blocks
    for box, block in zip(diagram.boxes, blocks, strict=False):
        assert block.lines == (box.label, f"{diagram.row_ms(box.node):.3g} ms")
        assert block.dashed == ("zoom" in box.label)
    assert all(len(b.lines) < 2 for b in pictures.picture(diagram_of(TINY, priced=False)).blocks)


def test_channels_stand_at_the_lines() -> None:
    diagram = diagram_of(TINY)
    remarks = [remark.text for remark in pictures.picture(diagram).remarks]
    channels = [str(b.node.spec.out_channels) for b in diagram.boxes if b.node.role != "output"]
    for number in set(channels):
        assert remarks.count(number) >= channels.count(number)


def test_a_dot_marks_where_lines_meet_and_none_where_they_cross() -> None:
    diagram = diagram_of(TINY)
    routes = pictures.picture(diagram).routes
    joints = {
        (w.source.node.role, w.target.node.role): len(route.joints)
        for w, route in zip(diagram.wires, routes, strict=True)
    }
    assert joints["stem.2", "cell.0.0"] == 1
    assert joints["squeeze.1.8", "fuse.1.8"] == 1
    assert joints["head", "output"] == 0


@pytest.mark.parametrize("ending", ["svg", "png"])
def test_the_same_network_gives_the_same_file(ending: str, tmp_path: Path) -> None:
    for name in "ab":
        pictures.write_picture(diagram_of(student()), tmp_path / f"{name}.{ending}")
    assert (tmp_path / f"a.{ending}").read_bytes() == (tmp_path / f"b.{ending}").read_bytes()


def test_files_are_pictures(tmp_path: Path) -> None:
    pictures.write_picture(diagram_of(TINY), tmp_path / "a.png")
    image = cv2.imread(str(tmp_path / "a.png"))
    assert image is not None
    assert image[0, 0].tolist() == [255, 255, 255]
    pictures.write_picture(diagram_of(TINY), tmp_path / "a.svg")
    root = ElementTree.fromstring((tmp_path / "a.svg").read_text())
    shown = {text.text for text in root.iter("{http://www.w3.org/2000/svg}text")}
    assert {"tiny", "zoom", "conv×2", "squeeze", "ffm", "head", "1/32"} <= shown
    assert "currentColor" not in (tmp_path / "a.svg").read_text()


def test_other_endings_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"\.svg or \.png"):
        pictures.write_picture(diagram_of(TINY), tmp_path / "a.jpg")
    assert not list(tmp_path.iterdir())


def test_names_are_text_whatever_they_hold() -> None:
    name = "<script>a</script> $x_1$ & $"
    svg = pictures.inline_svg(diagram_of(replace(TINY, name=name)))
    assert "<script" not in svg
    [title] = [e.text for e in ElementTree.fromstring(svg).iter() if e.text and "x_1" in e.text]
    assert title == name
    assert "currentColor" in svg
