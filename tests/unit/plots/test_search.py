"""Figures of a search: every point is drawn where it belongs, in the ink of the page."""

from __future__ import annotations

from typing import Any

import pytest

mpl = pytest.importorskip("matplotlib")
plots = pytest.importorskip("fasterseg.plots")


def axes_of(draw: Any, *arguments: Any) -> Any:
    """The axes that a drawing function fills."""
    return draw.__wrapped__(*arguments).axes[0]


def clouds_in(axes: Any) -> dict[str, list[list[float]]]:
    return {c.get_label(): c.get_offsets().tolist() for c in axes.collections}


def test_tradeoff_draws_networks_front_marks_and_limits() -> None:
    axes = axes_of(
        plots.tradeoff,
        {"evolution": [(1.0, 30.0), (2.0, 32.0)], "random": [(1.5, 29.0)]},
        [(1.0, 30.0), (2.0, 32.0)],
        {"measured": [(1.1, 30.0)], "chosen": [(2.1, 32.0)]},
        {"target 3 ms": 3.0},
        ("ms", "%"),
    )
    assert clouds_in(axes) == {
        "evolution": [[1.0, 30.0], [2.0, 32.0]],
        "random": [[1.5, 29.0]],
        "measured": [[1.1, 30.0]],
        "chosen": [[2.1, 32.0]],
    }
    front, limit = axes.get_lines()
    assert front.get_xydata().tolist() == [[1.0, 30.0], [2.0, 32.0]]
    assert list(limit.get_xdata()) == [3.0, 3.0]
    assert [text.get_text() for text in axes.texts] == ["target 3 ms"]


def test_agreement_draws_the_line_where_both_are_equal() -> None:
    axes = axes_of(plots.agreement, {"held out": [(1.0, 1.2), (3.0, 2.8)]}, ("a", "b"))
    assert clouds_in(axes)["held out"] == [[1.0, 1.2], [3.0, 2.8]]
    line = axes.get_lines()[0].get_xydata().tolist()
    assert all(x == y for x, y in line)
    assert line[0][0] < 1.0
    assert line[1][0] > 3.0
    assert axes.get_xlim() == axes.get_ylim()


def test_courses_draw_a_line_each_and_a_limit() -> None:
    series = {"student": [(0.0, 1.0), (1.0, 0.9)], "teacher": [(0.0, 1.0)]}
    axes = axes_of(plots.courses, series, ("epoch", "entropy"), ("unmoved", 0.95))
    lines = {line.get_label(): line for line in axes.get_lines()}
    assert lines["student"].get_xydata().tolist() == [[0.0, 1.0], [1.0, 0.9]]
    assert list(lines["unmoved"].get_ydata()) == [0.95, 0.95]


@pytest.mark.parametrize(
    ("draw", "arguments"),
    [
        ("tradeoff", ({"$a_1$": [(1.0, 2.0)]}, [], {}, {}, ("x", "y"))),
        ("agreement", ({"$a_1$": [(1.0, 2.0)]}, ("x", "y"))),
        ("courses", ({"$a_1$": [(1.0, 2.0)]}, ("x", "y"))),
    ],
)
def test_figures_are_the_same_each_time_and_names_are_text(
    draw: str, arguments: tuple[Any, ...]
) -> None:
    before = dict(mpl.rcParams)
    svg = getattr(plots, draw)(*arguments)
    assert svg == getattr(plots, draw)(*arguments)
    assert ">$a_1$</text>" in svg
    assert "currentColor" in svg
    assert plots.INK not in svg
    assert dict(mpl.rcParams) == before
