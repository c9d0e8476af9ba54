"""The ends of several streams: what cannot be right costs nothing, and no two write one file."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from fasterseg.errors import SourceError, UsageError
from fasterseg.stream import many_ends, sources_late
from fasterseg.stream.live import AbsentError
from fasterseg.stream.many import stream_names
from fasterseg.stream.many_ends import folder_of, open_sources, plan_streams
from fasterseg.stream.sinks import SinkOptions
from fasterseg.stream.sources import FrameSource
from fasterseg.stream.sources_late import LateSource
from fasterseg.stream.sources_options import SourceOptions
from tests.unit.stream.conftest import FakeSource, numbered, solid, write_picture, write_video
from tests.unit.stream.live_parts import wait_until


def named(*stems: str) -> list[FrameSource]:
    sources: list[FrameSource] = []
    for stem in stems:
        source = FakeSource([solid((0, 0, 0))])
        source.stem = stem
        sources.append(source)
    return sources


def test_inputs_are_opened_side_by_side(tmp_path: Path) -> None:
    clips = [write_video(tmp_path / f"{name}.mp4", numbered(3)) for name in "ab"]
    sources = open_sources([str(clip) for clip in clips], SourceOptions(limit=2))
    assert [source.stem for source in sources] == ["a", "b"]
    assert [len(list(source)) for source in sources] == [2, 2]
    for source in sources:
        source.close()


def test_options_of_one_kind_are_not_asked_of_the_other_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, SourceOptions] = {}

    def opened(uri: str, options: SourceOptions) -> FrameSource:
        given[uri] = options
        return FakeSource(numbered(1))

    monkeypatch.setattr(many_ends, "open_source", opened)
    clip = str(write_video(tmp_path / "a.mp4", numbered(1)))
    options = SourceOptions(reconnect_attempts=-1, drop="oldest", limit=7, loop=0)
    open_sources([clip, "rtsp://cam/live"], options)
    # How long to wait for the first opening is no matter of each source here.
    assert given["rtsp://cam/live"] == replace(options, loop=1, patient=False)
    assert given[clip] == SourceOptions(limit=7, loop=0, patient=False)
    # Alone they are refused, as with one input.
    open_sources([clip], options)
    assert given[clip] == replace(options, patient=False)


def test_an_input_that_cannot_be_opened_closes_the_others(tmp_path: Path) -> None:
    good = write_video(tmp_path / "a.mp4", numbered(3))
    bad = tmp_path / "b.mp4"
    bad.write_bytes(b"no video")
    before = open_files()
    with pytest.raises(SourceError, match=r"b\.mp4"):
        open_sources([str(good), str(bad)], SourceOptions())
    wait_until(lambda: open_files() <= before)


class Doors:
    """Opens inputs as it is told: a name -> what each attempt gives, the last one for ever."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, **given: Sequence[FrameSource | Exception]
    ) -> None:
        self.attempts: Counter[str] = Counter()
        self._given = given
        monkeypatch.setattr(many_ends, "open_source", self.open)
        monkeypatch.setattr(sources_late, "open_source", self.open)

    def open(self, uri: str, options: SourceOptions) -> FrameSource:
        assert not options.patient
        name = uri.removeprefix("rtsp://")
        self.attempts[name] += 1
        given = self._given[name]
        outcome = given[min(self.attempts[name], len(given)) - 1]
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


def absent(name: str, attempts: int = 5) -> AbsentError:
    return AbsentError(f"{name} is off", f"rtsp://{name}", name, "video", attempts)


SOON = SourceOptions(reconnect_interval_s=0.01)
URLS = ["rtsp://a", "rtsp://b"]


def test_a_camera_that_is_off_keeps_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    there, comes = FakeSource(numbered(2)), FakeSource(numbered(3))
    doors = Doors(monkeypatch, a=[there], b=[absent("b"), absent("b"), comes])
    first, late = open_sources(URLS, SOON)
    assert first is there
    assert isinstance(late, LateSource)
    assert (late.name, late.stem, late.kind, late.size) == ("rtsp://b", "b", "video", None)
    assert late.arrive() is comes
    assert doors.attempts == {"a": 1, "b": 3}
    late.close()
    assert comes.closed == 1


def test_where_nothing_is_there_all_reasons_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    doors = Doors(monkeypatch, a=[absent("a")], b=[absent("b")])
    with pytest.raises(SourceError, match="a is off; b is off"):
        open_sources(URLS, SOON)
    assert doors.attempts == {"a": 1, "b": 1}


def test_attempts_that_were_asked_for_wait_for_the_first_that_comes(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    comes = FakeSource(numbered(1))
    Doors(monkeypatch, a=[absent("a", -1)], b=[absent("b", -1), comes])
    late, first = open_sources(URLS, replace(SOON, reconnect_attempts=-1))
    assert first is comes
    assert isinstance(late, LateSource)
    late.close()
    wait_until(lambda: late.settled and not late._worker.is_alive())
    assert caplog.messages == ["a is off; b is off; waiting for the first that comes"]


def test_attempts_that_were_asked_for_have_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    doors = Doors(monkeypatch, a=[absent("a", 2)], b=[absent("b", 1)])
    with pytest.raises(SourceError, match="a is off; b is off"):
        open_sources(URLS, replace(SOON, reconnect_attempts=2))
    assert doors.attempts == {"a": 3, "b": 2}


@pytest.mark.parametrize(
    "error", [absent("b", 0), SourceError("no such input: b"), UsageError("${X} has no value")]
)
def test_what_no_attempt_can_mend_ends_it_at_once(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = FakeSource(numbered(2))
    doors = Doors(monkeypatch, a=[there], b=[error], c=[absent("c")])
    with pytest.raises(type(error), match=re.escape(str(error))):
        open_sources([*URLS, "rtsp://c"], SOON)
    assert there.closed == 1
    assert doors.attempts == {"a": 1, "b": 1, "c": 1}


def test_all_inputs_that_cannot_be_opened_are_told_at_once(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / f"{name}.mp4").write_bytes(b"no video")
    with pytest.raises(SourceError, match=r"a\.mp4.*b\.mp4"):
        open_sources([str(tmp_path / "a.mp4"), str(tmp_path / "b.mp4")], SourceOptions())


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.parametrize(
    "uris",
    [("camera:0", "/dev/video0"), ("-", "/dev/stdin"), ("camera:1", "a.mp4", "camera:1")],
)
def test_what_can_be_read_once_is_refused_twice_before_it_is_opened(
    uris: Sequence[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_video(tmp_path / "a.mp4", numbered(1))
    with pytest.raises(UsageError, match="is given 2 times"):
        open_sources(uris, SourceOptions())


def test_a_fifo_has_one_reader_whatever_it_is_called(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "pipe")
    with pytest.raises(UsageError, match="is given 2 times"):
        open_sources([str(tmp_path / "pipe"), str(tmp_path / "link")], SourceOptions())


@pytest.mark.parametrize(
    "output", ["-", "display:", "x.mp4", "maps/%06d.png", "maps/%06d", "rtsp://u:p@host/x", None]
)
def test_an_output_for_one_stream_is_refused(output: str | None) -> None:
    with pytest.raises(UsageError, match="several INPUTs") as caught:
        folder_of(output)
    assert "u:p" not in str(caught.value)


def test_a_folder_may_have_any_name(tmp_path: Path) -> None:
    (tmp_path / "there.mp4").mkdir()
    for output in (str(tmp_path / "there.mp4"), "new.mp4/", "out", "null:"):
        assert folder_of(output) == output
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="is a file"):
        folder_of(str(tmp_path / "file"))


def planned(output: str, formats: Sequence[str], *sources: FrameSource) -> dict[str, str]:
    by_name = dict(zip(stream_names(sources), sources, strict=True))
    return plan_streams(output, formats, by_name, SinkOptions())


def test_each_stream_has_a_file_or_folder_of_its_name(tmp_path: Path) -> None:
    clip, pictures_ = named("front", "front")
    pictures_.kind = "images"
    out = str(tmp_path)
    assert planned(out, ["overlay"], clip, pictures_) == {
        "front": f"{out}/front.mp4",
        "front-2": f"{out}/front-2/",
    }
    assert planned(out, ["classmap"], clip)["front"] == f"{out}/front.mkv"
    assert planned(out, ["classmap", "stats"], clip)["front"] == f"{out}/front"
    assert planned(f"{out}/", ["rle"], pictures_)["front"] == f"{out}/front.jsonl"
    assert planned("null:", ["overlay"], clip) == {"front": "null:"}


def test_no_file_has_two_writers(tmp_path: Path) -> None:
    clip, folder = named("a", "a.mp4")
    folder.kind = "images"
    with pytest.raises(UsageError, match=r"streams a and a\.mp4 would both write"):
        planned(str(tmp_path), ["overlay"], clip, folder)


def test_no_stream_writes_what_another_one_reads(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    ours = write_video(tmp_path / "x" / "a.mp4", numbered(1))
    theirs = write_video(tmp_path / "a.mp4", numbered(1))
    first, second = named("a", "b")
    first.files, second.files = (ours,), (theirs,)
    by_name = {"a": first, "b": second}
    with pytest.raises(UsageError, match="is what stream b reads"):
        plan_streams(str(tmp_path), ["overlay"], by_name, SinkOptions(), overwrite=True)


def test_no_stream_writes_into_the_pictures_another_one_reads(tmp_path: Path) -> None:
    picture = write_picture(tmp_path / "a" / "left" / "1.png", solid((0, 0, 0)))
    first, second = named("a", "b")
    first.kind = second.kind = "images"
    second.files = (picture,)
    by_name = {"a": first, "b": second}
    with pytest.raises(UsageError, match="is what stream b reads"):
        plan_streams(str(tmp_path), ["overlay"], by_name, SinkOptions(), overwrite=True)
