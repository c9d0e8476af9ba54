from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from fasterseg.errors import SourceError, UsageError
from fasterseg.stream.readahead import ReadAhead
from fasterseg.stream.sources import FrameSource, Kind, open_source
from fasterseg.stream.sources_live import LiveSource
from fasterseg.stream.sources_options import RAW_FORMATS, RawVideo, SourceOptions
from fasterseg.types import Size
from tests.contract.source import SourceContract
from tests.unit.stream.conftest import NTSC, number_of, numbered, solid, write_video
from tests.unit.stream.live_parts import wait_until

SMALL = Size(4, 6)
FRAME_BYTES = SMALL.pixels * 3
BGR = RawVideo("bgr24", SMALL, Fraction(10))


class FakeStdin:
    """Standard input that is a new pipe, with its own writer, each time it is looked at."""

    def __init__(self, content: bytes, *, stays_open: bool = False) -> None:
        self.closed = False
        self._content = content
        self._stays_open = stays_open
        self._readers: list[int] = []
        self._writers: list[int] = []
        self._threads: list[threading.Thread] = []

    def fileno(self) -> int:
        reader, writer = os.pipe()
        self._readers.append(reader)
        thread = threading.Thread(target=self._write, args=(writer,))
        thread.start()
        self._threads.append(thread)
        return reader

    def tidy_up(self) -> None:
        """Close everything; the writers end because nobody reads any more."""
        for reader in self._readers:
            os.close(reader)
        for thread in self._threads:
            thread.join()
        for writer in self._writers:
            os.close(writer)

    def _write(self, writer: int) -> None:
        with contextlib.suppress(BrokenPipeError):
            view = memoryview(self._content)
            while view:
                view = view[os.write(writer, view) :]
        if self._stays_open:
            self._writers.append(writer)
        else:
            os.close(writer)


Stdin = Callable[..., None]


@pytest.fixture
def stdin(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stdin]:
    """Makes standard input a pipe of the bytes given."""
    fakes: list[FakeStdin] = []

    def set_to(content: bytes, *, stays_open: bool = False) -> None:
        fakes.append(FakeStdin(content, stays_open=stays_open))
        monkeypatch.setattr(sys, "stdin", fakes[-1])

    yield set_to
    for fake in fakes:
        fake.tidy_up()


def raw_bytes(count: int, size: Size = SMALL) -> bytes:
    """`numbered` pictures as bgr24."""
    return b"".join(picture.tobytes() for picture in numbered(count, size))


def numbers(uri: str, options: SourceOptions = SourceOptions()) -> list[int]:  # noqa: B008
    """Which of `numbered` a source gives."""
    source = open_source(uri, options)
    found = [number_of(frame.image) for frame in source]
    source.close()
    return found


class TestContainerFromStdin(SourceContract):
    kind: Kind = "video"

    @pytest.fixture
    def uri(self, tmp_path: Path, stdin: Stdin) -> str:
        stdin(write_video(tmp_path / "a.mkv", numbered(self.count)).read_bytes())
        return "-"


@pytest.mark.parametrize("name", ["a.mkv", "a.ts", "a.avi", "a.mp4", "a.h264"])
def test_containers_are_read_without_seeking(tmp_path: Path, stdin: Stdin, name: str) -> None:
    options = {"movflags": "faststart"} if name == "a.mp4" else None
    form = "h264" if name == "a.h264" else None
    path = write_video(tmp_path / name, numbered(12), options=options, format=form)
    stdin(path.read_bytes())
    source = open_source("-")
    assert [number_of(frame.image) for frame in source] == list(range(12))
    assert (source.name, source.stem, source.files) == ("stdin", "stdin", ())
    assert not source.live
    source.close()


def test_start_in_a_pipe_is_found_by_decoding(tmp_path: Path, stdin: Stdin) -> None:
    stdin(write_video(tmp_path / "a.mkv", numbered(20)).read_bytes())
    assert numbers("-", SourceOptions(start_s=0.4)) == list(range(10, 20))


def test_mp4_with_its_index_at_the_end_says_what_pipes_need(tmp_path: Path, stdin: Stdin) -> None:
    # More than FFmpeg keeps in memory while it looks for the index.
    noise = np.random.default_rng(0).integers(0, 256, (8, 360, 480, 3), np.uint8)
    stdin(write_video(tmp_path / "a.mp4", list(noise)).read_bytes())
    with pytest.raises(SourceError, match=r"index in front.*faststart.*Matroska") as caught:
        open_source("-")
    assert caught.value.exit_code == 3


def test_stdin_redirected_from_a_file_can_seek(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_video(tmp_path / "a.mp4", numbered(12))
    with path.open() as file:
        monkeypatch.setattr(sys, "stdin", file)
        assert numbers("-") == list(range(12))


def test_pipe_cut_off_in_the_middle_gives_what_there_is(tmp_path: Path, stdin: Stdin) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (20, 64, 96, 3), np.uint8)
    path = write_video(tmp_path / "a.mp4", list(noise), options={"movflags": "faststart"})
    data = path.read_bytes()
    stdin(data[: len(data) // 2])
    source = open_source("-")
    frames = list(source)
    source.close()
    assert source.truncated
    assert 5 < len(frames) == 20 - source.lost_frames


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "stdin is empty"),
        (b"hello world\n" * 50, "no video FFmpeg can read without seeking"),
    ],
)
def test_stdin_without_a_video_says_so(stdin: Stdin, content: bytes, reason: str) -> None:
    stdin(content)
    with pytest.raises(SourceError, match=reason):
        open_source("-")


def test_closed_stdin_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(SourceError, match="standard input is closed; pipe a video"):
        open_source("-")
    closed = io.StringIO()
    closed.close()
    monkeypatch.setattr(sys, "stdin", closed)
    with pytest.raises(SourceError, match="standard input is closed"):
        open_source("-")


def test_stdin_without_a_descriptor_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("x"))
    with pytest.raises(SourceError, match="standard input cannot be read"):
        open_source("-")


def test_terminal_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    master, terminal = os.openpty()
    with os.fdopen(terminal) as stream, os.fdopen(master):
        monkeypatch.setattr(sys, "stdin", stream)
        with pytest.raises(SourceError, match="is a terminal; pipe a video into it"):
            open_source("-")


def test_pipe_comes_only_once(tmp_path: Path, stdin: Stdin) -> None:
    stdin(write_video(tmp_path / "a.mkv", numbered(2)).read_bytes())
    with pytest.raises(UsageError, match="stdin comes only once"):
        open_source("-", SourceOptions(loop=2))


def test_fifo_is_read_like_standard_input(tmp_path: Path) -> None:
    video = write_video(tmp_path / "a.mkv", numbered(6), NTSC)
    fifo = tmp_path / "live.mkv"
    os.mkfifo(fifo)
    writer = threading.Thread(target=lambda: fifo.write_bytes(video.read_bytes()))
    writer.start()
    source = open_source(str(fifo))
    assert [number_of(frame.image) for frame in source] == list(range(6))
    source.close()
    writer.join()
    assert source.stem == "live"
    assert source.fps == NTSC


def test_reader_that_nobody_wants_any_more_does_not_wait_for_a_silent_writer(
    stdin: Stdin,
) -> None:
    stdin(raw_bytes(3), stays_open=True)
    source = open_source("-", SourceOptions(raw=BGR))
    with ReadAhead(source, lambda frame: frame.index) as reader:
        assert next(iter(reader)) == 0
    source.close()


def test_silent_container_does_not_hold_the_reader_either(tmp_path: Path, stdin: Stdin) -> None:
    stdin(write_video(tmp_path / "a.mkv", numbered(39)).read_bytes(), stays_open=True)
    source = open_source("-")
    with ReadAhead(source, lambda frame: frame.index) as reader:
        assert next(iter(reader)) == 0
    source.close()


def test_ctrl_c_while_waiting_for_the_first_byte_is_ctrl_c(stdin: Stdin) -> None:
    stdin(b"", stays_open=True)
    timer = threading.Timer(0.3, lambda: os.kill(os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        open_source("-")
    timer.join()


class TestRawFile(SourceContract):
    kind: Kind = "video"

    @pytest.fixture
    def uri(self, tmp_path: Path) -> str:
        path = tmp_path / "frames.bgr"
        path.write_bytes(raw_bytes(self.count))
        return str(path)

    def open(self, uri: str, **options: Any) -> FrameSource:
        return super().open(uri, raw=BGR, **options)


@pytest.mark.parametrize("form", RAW_FORMATS)
def test_raw_pixels_become_bgr(stdin: Stdin, form: str) -> None:
    image = solid((40, 80, 200), SMALL)
    planes = np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2YUV_I420))
    luma, chroma = planes[:4], planes[4:].reshape(2, -1)
    content: dict[str, Any] = {
        "bgr24": image,
        "bgra": cv2.cvtColor(image, cv2.COLOR_BGR2BGRA),
        "gray": image[..., 1],
        "nv12": np.concatenate([luma.ravel(), chroma.T.ravel()]),
        "rgb24": image[..., ::-1],
        "rgba": cv2.cvtColor(image, cv2.COLOR_BGR2RGBA),
        "yuv420p": planes,
    }
    stdin(np.ascontiguousarray(content[form]).tobytes() * 2)
    source = open_source("-", SourceOptions(raw=RawVideo(form, SMALL, NTSC)))
    frames = list(source)
    source.close()
    expected = (80, 80, 80) if form == "gray" else (40, 80, 200)
    assert len(frames) == 2
    for frame in frames:
        np.testing.assert_allclose(frame.image, np.full((4, 6, 3), expected), atol=3)
        assert frame.image.flags.writeable
    assert source.fps == NTSC
    assert frames[1].timestamp_s == float(1 / NTSC)


def test_raw_frames_larger_than_a_pipes_buffer_come_whole(stdin: Stdin) -> None:
    size = Size(360, 480)
    stdin(raw_bytes(5, size))
    assert numbers("-", SourceOptions(raw=RawVideo("bgr24", size))) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("through_pipe", [True, False])
def test_raw_frames_start_where_asked(tmp_path: Path, stdin: Stdin, through_pipe: bool) -> None:
    path = tmp_path / "frames.bgr"
    path.write_bytes(raw_bytes(20))
    stdin(path.read_bytes())
    options = SourceOptions(raw=BGR, start_s=0.5, max_fps=Fraction(5))
    assert numbers("-" if through_pipe else str(path), options) == [5, 7, 9, 11, 13, 15, 17, 19]
    if not through_pipe:
        assert open_source(str(path), options).frame_count == 8
    with pytest.raises(UsageError, match=r"--start 2 is after the end"):
        open_source("-" if through_pipe else str(path), SourceOptions(raw=BGR, start_s=2))


def test_raw_end_within_a_frame_is_truncated(stdin: Stdin) -> None:
    stdin(raw_bytes(3)[:-1])
    source = open_source("-", SourceOptions(raw=BGR))
    assert len(list(source)) == 2
    source.close()
    assert source.truncated
    assert source.lost_frames == 1
    assert f"{FRAME_BYTES - 1} of {FRAME_BYTES} bytes" in source.warnings[0]
    assert "not 4x6 (HxW) bgr24" in source.warnings[0]


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"", "stdin is empty"), (b"1234", "holds 4 bytes, less than one frame of 4x6.*--input-size")],
)
def test_raw_input_without_one_frame_is_an_error(stdin: Stdin, content: bytes, reason: str) -> None:
    stdin(content)
    with pytest.raises(SourceError, match=reason):
        open_source("-", SourceOptions(raw=BGR))


def test_raw_input_that_is_not_there_or_a_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"cannot read .*gone: No such file"):
        open_source(str(tmp_path / "gone"), SourceOptions(raw=BGR))
    with pytest.raises(SourceError, match="Is a directory"):
        open_source(str(tmp_path), SourceOptions(raw=BGR))


def test_raw_file_can_be_looped(tmp_path: Path) -> None:
    path = tmp_path / "frames.bgr"
    path.write_bytes(raw_bytes(3))
    options = SourceOptions(raw=BGR, loop=2)
    assert numbers(str(path), options) == [0, 1, 2, 0, 1, 2]


def write_again(fifo: Path, data: bytes, times: int) -> None:
    """Writer after writer, each when the reader has seen the end of the last one."""

    def is_read() -> bool:
        for fd in Path("/proc/self/fd").iterdir():
            # The one that lists the folder is gone already.
            with contextlib.suppress(FileNotFoundError):
                if fd.readlink() == fifo:
                    return True
        return False

    for _ in range(times):
        fifo.write_bytes(data)
        wait_until(lambda: not is_read())


def test_fifo_is_opened_again_for_the_next_writer(tmp_path: Path) -> None:
    data = write_video(tmp_path / "a.mkv", numbered(6)).read_bytes()
    fifo = tmp_path / "live.mkv"
    os.mkfifo(fifo)

    writer = threading.Thread(target=write_again, args=(fifo, data, 3))
    writer.start()
    options = SourceOptions(reconnect_attempts=20, reconnect_interval_s=0.05, limit=18)
    source = open_source(str(fifo), options)
    frames = list(source)
    source.close()
    writer.join()
    assert [number_of(frame.image) for frame in frames] == [*range(6)] * 3
    assert [frame.index for frame in frames] == list(range(18))
    assert np.diff([frame.timestamp_s for frame in frames]).min() > 0
    assert not source.live
    assert isinstance(source, LiveSource)
    assert source.account.now().reconnects == 2


def test_raw_fifo_is_opened_again_too(tmp_path: Path) -> None:
    fifo = tmp_path / "live.bgr"
    os.mkfifo(fifo)

    writer = threading.Thread(target=write_again, args=(fifo, raw_bytes(4), 2))
    writer.start()
    options = SourceOptions(raw=BGR, reconnect_attempts=20, reconnect_interval_s=0.05, limit=8)
    source = open_source(str(fifo), options)
    assert [number_of(frame.image) for frame in source] == [*range(4)] * 2
    source.close()
    writer.join()


def test_waiting_for_the_writer_of_a_fifo_can_be_interrupted(tmp_path: Path) -> None:
    fifo = tmp_path / "live.mkv"
    os.mkfifo(fifo)
    timer = threading.Timer(0.2, lambda: os.kill(os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        open_source(str(fifo), SourceOptions(reconnect_attempts=-1))
    timer.join()


def test_pipe_that_drops_gives_the_newest(stdin: Stdin) -> None:
    stdin(raw_bytes(30))
    source = open_source("-", SourceOptions(raw=BGR, drop="oldest"))
    assert isinstance(source, LiveSource)
    assert source.live
    source._session.over(20)
    assert [number_of(frame.image) for frame in source][-1] == 29
    source.close()
    assert (source.name, source.stem, source.warnings) == ("stdin", "stdin", [])


def test_stdin_cannot_be_opened_again(stdin: Stdin) -> None:
    stdin(raw_bytes(1))
    with pytest.raises(UsageError, match="stdin comes only once; use a named pipe"):
        open_source("-", SourceOptions(raw=BGR, reconnect_attempts=2))


def test_raw_file_is_no_pipe_to_open_again(tmp_path: Path) -> None:
    path = tmp_path / "frames.bgr"
    path.write_bytes(raw_bytes(3))
    with pytest.raises(UsageError, match=r"are for pipes; .*frames\.bgr is a file"):
        open_source(str(path), SourceOptions(raw=BGR, reconnect_attempts=2))
    with pytest.raises(SourceError, match=r"cannot read .*gone: No such file"):
        open_source(str(tmp_path / "gone"), SourceOptions(raw=BGR, reconnect_attempts=2))
