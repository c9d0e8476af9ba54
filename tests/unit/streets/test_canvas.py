from __future__ import annotations

import cv2
import numpy as np
import pytest

from fasterseg.streets.canvas import Canvas, fixed
from fasterseg.streets.light import Colour
from fasterseg.streets.texture import Texture
from fasterseg.types import Size

GREY = Colour(90, 90, 90)


def blank() -> Canvas:
    canvas = Canvas(Size(60, 80), Colour(250, 250, 250))
    canvas.image[:] = 0
    return canvas


def test_a_polygon_gets_its_label_where_it_gets_its_colour() -> None:
    canvas = blank()
    canvas.convex(fixed(np.array([[10.3, 8.6], [50.2, 12.1], [44.7, 40.4]])), (0, 200, 0), 7)
    green, inside = canvas.image[..., 1], canvas.labels == 7
    assert inside[green == 200].all()
    assert (green[inside] > 60).all()
    # Antialiasing may reach one pixel beyond the label; only a trace gets farther at sharp tips.
    around = cv2.dilate(inside.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    assert around[green > 60].all()
    assert (green[~inside] < 200).all()


def test_a_surface_changes_the_same_pixels_in_picture_and_labels() -> None:
    canvas = blank()
    texture = Texture(np.full((32, 48, 3), 180, np.uint8))
    quad = np.array([[12.0, 10.0], [60.0, 16.0], [60.0, 44.0], [12.0, 52.0]])
    canvas.surface(texture, quad, (0.0, 1.0), 0.0, 1)
    assert np.array_equal(canvas.image[..., 0] == 180, canvas.labels == 1)
    assert (canvas.labels == 1).sum() == pytest.approx(48 * 35, rel=0.08)


def test_a_part_of_a_texture_lies_where_it_lies_in_the_whole() -> None:
    ramp = np.repeat(np.arange(0, 240, 4, dtype=np.uint8)[None, :, None], 40, axis=0)
    texture = Texture(np.repeat(ramp, 3, axis=2))
    left, top, right, bottom = 10.0, 8.0, 70.0, 48.0
    whole, parts = blank(), blank()
    corners = np.array([[left, top], [right, top], [right, bottom], [left, bottom]])
    whole.surface(texture, corners, (0.0, 1.0), 0.0, 1)
    for start, end in ((0.0, 0.5), (0.5, 1.0)):
        piece = corners.copy()
        piece[[0, 3], 0] = left + start * (right - left)
        piece[[1, 2], 0] = left + end * (right - left)
        parts.surface(texture, piece, (start, end), 0.0, 1)
    assert np.abs(whole.image.astype(int) - parts.image).max() <= 6
    assert np.array_equal(whole.labels, parts.labels)


def test_holes_of_a_sprite_keep_what_is_behind_it() -> None:
    canvas = blank()
    mask = np.zeros((40, 40), np.uint8)
    mask[10:30, 10:30] = 255
    sprite = Texture(np.full((40, 40, 3), 150, np.uint8), mask)
    canvas.sprite(sprite, np.array([[20.0, 10.0], [60.0, 50.0]]), 0.0, 5)
    assert np.array_equal(canvas.image[..., 0] == 150, canvas.labels == 5)
    assert (canvas.labels == 5).sum() == pytest.approx(400, rel=0.15)


def test_haze_draws_colours_towards_the_air() -> None:
    canvas = blank()
    texture = Texture(np.full((32, 32, 3), 50, np.uint8))
    quad = np.array([[10.0, 10.0], [50.0, 10.0], [50.0, 50.0], [10.0, 50.0]])
    canvas.surface(texture, quad, (0.0, 1.0), 0.5, 1)
    assert canvas.image[30, 30, 0] == pytest.approx(150, abs=1)


def test_a_halo_leaves_the_labels_alone() -> None:
    canvas = blank()
    canvas.labels[:] = 3
    canvas.shine(np.array([40.0, 30.0]), 12.0, Colour(100, 150, 200))
    assert canvas.image[30, 40, 2] > 120
    assert (canvas.labels == 3).all()


def test_shapes_outside_the_picture_paint_nothing() -> None:
    canvas = blank()
    texture = Texture(np.full((32, 32, 3), 50, np.uint8))
    far = np.array([[200.0, 10.0], [250.0, 10.0], [250.0, 50.0], [200.0, 50.0]])
    canvas.surface(texture, far, (0.0, 1.0), 0.0, 1)
    canvas.sprite(texture, np.array([[-90.0, 0.0], [-20.0, 40.0]]), 0.0, 1)
    assert (canvas.labels == 255).all()
    assert canvas.image.max() == 0


def test_far_textures_keep_their_mean_colour() -> None:
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 200
    small, _ = Texture(stripes).level(8, 8)
    assert small.shape == (8, 8, 3)
    assert np.abs(small.astype(int) - 100).max() <= 1
