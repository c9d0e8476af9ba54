from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from fasterseg.streets.camera import Camera, Course, Ride
from fasterseg.streets.canvas import Canvas
from fasterseg.streets.items import Shape, clipped, paint
from fasterseg.streets.light import Colour, Light
from fasterseg.streets.mesh import Modeller
from fasterseg.streets.style import draw_style
from fasterseg.types import Size

SIZE = Size(120, 160)
LIGHT = replace(draw_style(0).light, visibility_m=1e9)
STRAIGHT = Camera(
    s=100.0, d=0.0, height_m=1.5, yaw=0.0, pitch=0.0, roll=0.0, focal_px=120.0,
    centre=(79.5, 59.5), course=Course(((0.0, 0.01, 0.0),), ((0.0, 0.01, 0.0),)),
)  # fmt: skip


def painted(*shapes: Shape, light: Light = LIGHT) -> Canvas:
    canvas = Canvas(SIZE, light.haze)
    canvas.image[:] = 0
    paint(canvas, STRAIGHT, light, shapes)
    return canvas


def box(label: int, s: float, d: float = 0.0) -> Shape:
    model = Modeller(LIGHT)
    model.box((d - 0.5, 0.0, s), (d + 0.5, 1.0, s + 1.0), Colour(100, 100, 100), label)
    return Shape(s, model.build())


def test_a_box_ends_up_where_the_pinhole_puts_it() -> None:
    labels = painted(box(8, 110.0)).labels
    rows, columns = np.nonzero(labels == 8)
    assert columns.min() == pytest.approx(79.5 - 0.5 * 12, abs=1)
    assert columns.max() == pytest.approx(79.5 + 0.5 * 12, abs=1)
    assert rows.max() == pytest.approx(59.5 + 1.5 * 12, abs=1)
    assert rows.min() == pytest.approx(59.5 + 0.5 * 120 / 11, abs=1)


def test_near_things_cover_far_things_in_any_order_of_listing() -> None:
    near, far = box(8, 106.0), box(9, 112.0)
    first, second = painted(near, far).labels, painted(far, near).labels
    assert np.array_equal(first, second)
    assert (first == 8).sum() > (first == 9).sum()


def test_faces_turned_away_are_not_drawn() -> None:
    model = Modeller(LIGHT)
    corners = ((-1.0, 0.0, 110.0), (-1.0, 2.0, 110.0), (1.0, 2.0, 110.0), (1.0, 0.0, 110.0))
    model.face(corners, Colour(100, 100, 100), 1, culled=True)
    assert (painted(Shape(110.0, model.build())).labels == 1).any()
    model = Modeller(LIGHT)
    model.face(corners[::-1], Colour(100, 100, 100), 1, culled=True)
    assert not (painted(Shape(110.0, model.build())).labels == 1).any()


def test_a_face_through_the_camera_is_cut_and_still_fills_its_side() -> None:
    model = Modeller(LIGHT)
    wall = ((3.0, -5.0, 95.0), (3.0, 9.0, 95.0), (3.0, 9.0, 130.0), (3.0, -5.0, 130.0))
    model.face(wall, Colour(100, 100, 100), 1)
    labels = painted(Shape(130.0, model.build())).labels
    assert (labels[:, -5:] == 1).all()
    assert not (labels[:, :80] == 1).any()


def test_things_behind_the_camera_are_left_out() -> None:
    model = Modeller(LIGHT)
    model.tube(((0.0, 0.0, 90.0), (0.0, 2.0, 90.0)), (0.5, 0.5), Colour(90, 90, 90), 2)
    labels = painted(box(8, 95.0), Shape(90.0, model.build())).labels
    assert (labels == 255).all()


def test_a_ball_is_as_wide_as_its_radius_says() -> None:
    model = Modeller(LIGHT)
    model.tube(((0.0, 1.5, 110.0), (0.0, 1.5, 110.0)), (1.0, 1.0), Colour(90, 90, 90), 9)
    rows, columns = np.nonzero(painted(Shape(110.0, model.build())).labels == 9)
    assert np.ptp(columns) == pytest.approx(24, abs=2)
    assert np.ptp(rows) == pytest.approx(24, abs=2)


def test_far_things_take_the_colour_of_the_haze() -> None:
    thick = replace(LIGHT, visibility_m=5.0)
    canvas = painted(box(8, 160.0), light=thick)
    pixel = np.median(canvas.image[canvas.labels == 8], axis=0)
    assert np.abs(pixel - np.array(thick.haze)).max() < 3


def test_clipping_keeps_what_is_ahead_of_the_near_plane() -> None:
    square = np.array([[-1, 0, -2], [-1, 0, 4], [1, 0, 4], [1, 0, -2]], np.float64)
    cut = clipped(square)
    assert cut[:, 2].min() == pytest.approx(0.45)
    assert cut[:, 2].max() == 4
    assert len(cut) == 4


def test_the_horizon_is_where_far_ground_vanishes() -> None:
    tilted = replace(STRAIGHT, pitch=math.radians(4), roll=math.radians(3))
    far = np.array([[-4e6, 0.0, 1e7], [0.0, 0.0, 1e7], [4e6, 0.0, 1e7]])
    for column, row in tilted.pixels(tilted.view(far)):
        assert tilted.horizon_row(float(column)) == pytest.approx(row, abs=0.05)


def test_the_camera_never_rolls_back() -> None:
    for seed in range(8):
        ride = Ride(draw_style(seed), SIZE)
        places = [ride.distance_m(step / 5) for step in range(400)]
        assert min(np.diff(places)) > 0.3
