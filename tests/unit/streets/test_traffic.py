from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from fasterseg.streets.camera import Ride
from fasterseg.streets.canvas import Canvas
from fasterseg.streets.facades import Builder
from fasterseg.streets.foliage import Foliage
from fasterseg.streets.items import paint
from fasterseg.streets.kit import BICYCLIST, CAR, PEDESTRIAN, Kit
from fasterseg.streets.style import draw_style
from fasterseg.streets.traffic import Lane, Traffic
from fasterseg.types import Size

SIZE = Size(180, 240)


def moving_things(seed: int, times: list[float]) -> list[NDArray[np.uint8]]:
    """Label maps of what moves, seen by a camera that does not."""
    style = draw_style(seed)
    kit = Kit(style, Builder(seed, style.light, 10.0), Foliage(seed, style.light, 0.0, 0.5))
    ride = Ride(style, SIZE)
    traffic = Traffic(kit, ride)
    maps = []
    for time_s in times:
        canvas = Canvas(SIZE, style.light.haze)
        paint(canvas, ride.camera(0.0), style.light, traffic.at(time_s).items)
        maps.append(canvas.labels)
    return maps


@pytest.mark.parametrize("label", [CAR, PEDESTRIAN, BICYCLIST])
def test_cars_walkers_and_cyclists_move_while_the_camera_stands(label: int) -> None:
    moved = 0
    for seed in (3, 4, 8):
        before, after = moving_things(seed, [0.0, 0.4])
        seen = np.count_nonzero(before == label)
        changed = np.count_nonzero((before == label) != (after == label))
        moved += int(seen > 10 and changed > 0.05 * seen)
    assert moved >= 2


def test_travellers_advance_at_the_speed_of_their_lane() -> None:
    lane = Lane("test", 0.0, gap_m=20.0, speed=-8.0, share=1.0, wander_m=3.0)
    before = {number: s for number, s, _ in lane.travellers(1, 10.0, 0.0, 200.0)}
    after = {number: s for number, s, _ in lane.travellers(1, 11.5, 0.0, 200.0)}
    shared = before.keys() & after.keys()
    assert len(shared) >= 8
    for number in shared:
        assert after[number] - before[number] == pytest.approx(-12.0)


def test_vehicles_in_one_lane_never_touch() -> None:
    lane = Lane("test", 0.0, gap_m=24.0, speed=9.0, share=1.0, wander_m=4.0)
    for time_s in (0.0, 33.0, 5000.0):
        places = sorted(s for _, s, _ in lane.travellers(7, time_s, 0.0, 900.0))
        assert len(places) > 30
        assert min(np.diff(places)) > 11.0


def test_an_emptier_lane_carries_fewer() -> None:
    busy = Lane("test", 0.0, gap_m=10.0, speed=5.0, share=0.9, wander_m=1.0)
    calm = Lane("test", 0.0, gap_m=10.0, speed=5.0, share=0.2, wander_m=1.0)
    counts = [len(lane.travellers(3, 0.0, 0.0, 3000.0)) for lane in (busy, calm)]
    assert counts[0] > 240
    assert 20 < counts[1] < 110


def test_nobody_stands_in_the_way_of_the_camera() -> None:
    for seed in range(4):
        style = draw_style(seed)
        kit = Kit(style, Builder(seed, style.light, 10.0), Foliage(seed, style.light, 0.0, 0.5))
        ride = Ride(style, SIZE)
        traffic = Traffic(kit, ride)
        for time_s in np.arange(0.0, 40.0, 0.8):
            camera = ride.camera(float(time_s))
            for outline in traffic.at(float(time_s)).contacts:
                d, s = outline.mean(axis=0)
                assert not (-1 < s - camera.s < 4 and abs(d - camera.d) < 0.8), (seed, time_s)
