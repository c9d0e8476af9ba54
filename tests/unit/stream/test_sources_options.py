from __future__ import annotations

import itertools
import math
from fractions import Fraction
from typing import Any

import pytest

from fasterseg.errors import UsageError
from fasterseg.stream.sources_options import (
    Picker,
    RawVideo,
    SourceOptions,
    rate_of,
    raw_video,
    seconds_of,
)
from fasterseg.types import Size
from tests.unit.stream.conftest import NTSC


@pytest.mark.parametrize(
    ("option", "value", "reason"),
    [
        ("stride", 0, "stride is 0; it must be 1 or more"),
        ("limit", 0, "limit is 0; it must be 1 or more"),
        ("loop", -1, "loop is -1; it must be 1 or more, or 0 for ever"),
        ("start_s", -1.0, "start is -1.0"),
        ("start_s", math.nan, "start is nan"),
        ("start_s", math.inf, "start is inf"),
        ("max_fps", Fraction(0), "max fps is 0"),
        ("max_fps", Fraction(-5), "max fps is -5"),
        ("max_fps", Fraction(10**9), "max fps is 1000000000"),
    ],
)
def test_value_that_cannot_be_right_is_refused(option: str, value: Any, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        SourceOptions(**{option: value})


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0", 0), ("12.5", 12.5), (".5", 0.5), ("90", 90), ("1:30", 90), ("01:02:03.25", 3723.25)],
)
def test_times_are_seconds_or_clock_times(text: str, seconds: float) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "-1", "nan", "inf", "1e3", "1:", ":5", "1:2:3:4", "1:75:00"])
def test_other_times_are_refused_with_the_forms_there_are(text: str) -> None:
    with pytest.raises(UsageError, match="write seconds"):
        seconds_of(text)


def test_rates_are_exact() -> None:
    assert rate_of("30000/1001") == NTSC
    assert rate_of("29.97") == Fraction(2997, 100)
    for text in ("", "nan", "inf", "1/0", "fast"):
        with pytest.raises(UsageError, match="no frame rate"):
            rate_of(text)


def test_rate_and_count_follow_stride_maximum_and_limit() -> None:
    assert SourceOptions(stride=3).rate(NTSC) == NTSC / 3
    assert SourceOptions(max_fps=Fraction(10)).rate(NTSC) == 10
    assert SourceOptions(max_fps=Fraction(60)).rate(NTSC) == NTSC
    assert SourceOptions(max_fps=Fraction(60)).rate(None) is None
    assert SourceOptions().count(10) == 10
    assert SourceOptions(stride=3).count(10) == 4
    assert SourceOptions(stride=3, limit=2).count(10) == 2
    assert SourceOptions(max_fps=Fraction(10)).count(100, Fraction(25)) == 40
    assert SourceOptions(max_fps=Fraction(50)).count(100, Fraction(25)) == 100


@pytest.mark.parametrize("rate", [Fraction(25), NTSC, Fraction(60), Fraction(7)])
@pytest.mark.parametrize("maximum", [Fraction(10), Fraction(25), NTSC, Fraction(1, 2)])
def test_maximum_rate_is_reached_and_never_passed(rate: Fraction, maximum: Fraction) -> None:
    picker = Picker(1, maximum)
    seconds = 40
    taken = [t for i in range(int(seconds * rate)) if picker.wants(i, t := float(i / rate))]
    wanted = min(rate, maximum) * seconds
    assert len(taken) == pytest.approx(float(wanted), abs=1)
    assert taken[0] == 0.0
    gaps = [after - before for before, after in itertools.pairwise(taken)]
    assert max(gaps) <= max(2 / rate, 1 / maximum + 1 / rate)


def test_stride_comes_before_the_maximum() -> None:
    picker = Picker(4, Fraction(5))
    assert [i for i in range(24) if picker.wants(i, i / 20)] == [0, 4, 8, 12, 16, 20]


def test_raw_video_needs_format_and_size() -> None:
    assert raw_video(None, None, None) is None
    assert raw_video("bgr24", Size(4, 6), None) == RawVideo("bgr24", Size(4, 6), Fraction(25))
    with pytest.raises(UsageError, match="--input-format needs --input-size HxW"):
        raw_video("bgr24", None, None)
    for size, fps in ((Size(4, 6), None), (None, Fraction(5))):
        with pytest.raises(UsageError, match="give --input-format too"):
            raw_video(None, size, fps)


def test_raw_video_that_cannot_be_right_is_refused() -> None:
    with pytest.raises(UsageError, match=r"unknown input format 'bgr'.*Did you mean 'bgra'"):
        RawVideo("bgr", Size(4, 6))
    with pytest.raises(UsageError, match=r"5x6 \(HxW\) is odd; nv12"):
        RawVideo("nv12", Size(5, 6))
    with pytest.raises(UsageError, match="input fps is 0"):
        RawVideo("bgr24", Size(4, 6), Fraction(0))
