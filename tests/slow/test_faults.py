"""The program killed, its disk slow or full, its reader gone, its stream damaged: what is left."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import numpy as np
import pytest

from fasterseg.stream.sources import open_source
from fasterseg.types import Size
from tests.media import write_clip
from tests.slow.children import (
    Child,
    account_of,
    faulty_disk,
    frames_of,
    leftovers,
    lines_of,
    mounted,
    pictures_of,
    plays,
)
from tests.slow.station import Station, damaged, transport
from tests.slow.test_streams import Sender

pytestmark = [pytest.mark.slow, pytest.mark.onnx]

SIZE: Final = Size(96, 128)
FRAMES: Final = 400
RATE: Final = 25
HELD: Final = 3 * RATE
"""Frames that a killed video may miss: those of the last second, and what the encoder holds."""

Run = Callable[..., Child]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("faults")


@pytest.fixture(scope="module")
def clip(place: Path) -> Path:
    return write_clip(place / "drive.mp4", FRAMES, SIZE, RATE)


@pytest.fixture
def folder(place: Path) -> Path:
    """Where a run writes; the engine beside it serves all of them."""
    made = place / f"{len(list(place.iterdir()))}"
    made.mkdir()
    return made


@pytest.fixture
def run(folder: Path) -> Iterator[Run]:
    """`run("drive.mp4", "o.mp4")`: `fasterseg infer` as a child."""
    with ExitStack() as stack:

        def start(*arguments: str | Path, **options: object) -> Child:
            child = Child(folder, *arguments, **options)  # type: ignore[arg-type]
            stack.callback(child.kill)
            return child

        yield start


@pytest.fixture
def sender() -> Iterator[Sender]:
    made = Sender("http")
    yield made
    made.kill()


# --- killed at any moment ------------------------------------------------------------------------

ALL_IN_ONE: Final = ("o", "--format", "overlay,classmap,classmap-png,rle,stats")
OUTPUTS: Final = {
    "every format": (ALL_IN_ONE, "o.overlay.mp4"),
    "mov": (("o.mov",), "o.mov"),
    "mkv": (("o.mkv",), "o.mkv"),
}
MOMENTS: Final = 3
SIGNALS: Final = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)


@pytest.fixture(scope="module")
def writing_s(clip: Path, place: Path) -> float:
    """Seconds from the first output to the end of a run that nobody disturbs."""
    (place / "calm").mkdir()
    child = Child(place / "calm", clip, *ALL_IN_ONE)
    try:
        child.wait_for((place / "calm" / "o.overlay.mp4").exists, "the video")
        began_s = time.monotonic()
        assert child.end() == 0
        return time.monotonic() - began_s
    finally:
        child.kill()


@pytest.mark.parametrize("moment", range(MOMENTS))
@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
@pytest.mark.parametrize("outputs", OUTPUTS)
def test_a_signal_at_any_moment_leaves_what_plays_and_a_run_can_follow(
    run: Run,
    clip: Path,
    folder: Path,
    writing_s: float,
    outputs: str,
    number: signal.Signals,
    moment: int,
) -> None:
    arguments, first = OUTPUTS[outputs]
    chance = random.Random(f"{outputs} {number} {moment}")
    child = run(clip, *arguments)
    child.wait_for((folder / first).exists, first)
    time.sleep(chance.uniform(0.0, writing_s))
    code = child.end(number)
    if number == signal.SIGKILL:
        assert code in (-signal.SIGKILL, 0)
        check_remains(folder, first)
    else:
        assert code in (130, 0), child.told
        assert leftovers(folder) == []
        assert check_complete(folder, first) <= FRAMES
    again = run(clip, *arguments, "--overwrite", "--limit", "20")
    assert again.end() == 0, again.told
    assert frames_of(folder / first) == 20
    if outputs == "every format":
        assert len(lines_of(folder / "o.rle.jsonl")) == 20
        assert json.loads((folder / "o.stats.json").read_text())["frames"] == 20


def check_complete(folder: Path, first: str) -> int:
    """Every output there is is whole, and holds the same frames."""
    count = frames_of(folder / first)
    if first == "o.overlay.mp4":
        assert len(lines_of(folder / "o.rle.jsonl")) == count
        assert json.loads((folder / "o.stats.json").read_text())["frames"] == count
        assert frames_of(folder / "o.classmap.mkv") == count
        assert len(pictures_of(folder / "o.classmap-png")) == count
    return count


def check_remains(folder: Path, first: str) -> None:
    """What SIGKILL left plays, up to its last seconds; nothing is torn but the last line."""
    leftovers(folder)
    if first != "o.overlay.mp4":
        plays(folder / first, 0)
        return
    done = len(lines_of(folder / "o.rle.jsonl", may_be_torn=True))
    plays(folder / first, done - HELD)
    plays(folder / "o.classmap.mkv", done - HELD)
    maps = folder / "o.classmap-png"
    pictures = pictures_of(maps)
    assert done <= len(pictures) <= done + 1
    if pictures:
        # A following run that reads them takes no half one for a picture.
        source = open_source(str(maps))
        assert len(list(source)) == len(pictures)
        source.close()
    if (folder / "o.stats.json").exists():
        assert json.loads((folder / "o.stats.json").read_text())["frames"] == FRAMES


@pytest.mark.parametrize("name", ["o.mp4", "o.mov"])
def test_killed_while_the_file_is_completed_both_copies_are_sound(
    run: Run, clip: Path, folder: Path, name: str
) -> None:
    # Every write takes a while, so that the second copy is there for long enough.
    slow = faulty_disk(folder.parent, folder, ms=20)
    child = run(clip, name, "--limit", "100", environment=slow)
    child.wait_for(lambda: leftovers(folder), "the second copy")
    assert child.end(signal.SIGKILL) == -signal.SIGKILL
    assert frames_of(folder / name) == 100
    again = run(clip, name, "--overwrite", "--limit", "5")
    assert again.end() == 0, again.told
    assert frames_of(folder / name) == 5


# --- slow and full disks, readers that are slow or gone ------------------------------------------

LARGE: Final = "360x640"
"""Frames of 0.7 MB: a queue without an end would show after a second."""


def test_a_slow_disk_costs_frames_of_a_live_source_and_no_memory(
    run: Run, sender: Sender, folder: Path
) -> None:
    slow = faulty_disk(folder.parent, folder, ms=150)
    sender.start(LARGE)
    formats = ("--format", "overlay,rle,stats", "--json=facts.json")
    child = run(sender.url, "o", *formats, environment=slow)
    rows = folder / "o.rle.jsonl"
    child.wait_for(lambda: len(lines_of(rows, may_be_torn=True)) >= 10, "ten lines")
    before_mib = child.resident_mib()
    child.wait_for(lambda: len(lines_of(rows, may_be_torn=True)) >= 60, "sixty lines")
    assert child.resident_mib() - before_mib < 40
    assert child.end(signal.SIGINT) == 130
    live = account_of(folder / "facts.json")
    assert live["dropped"] > live["processed"]
    # A few frames wait for the disk, each for the time of one: never more and more.
    assert live["max_staleness_s"] < 10
    assert len(lines_of(rows)) == live["processed"]
    assert frames_of(folder / "o.overlay.mp4") == live["processed"]


def test_a_slow_reader_costs_frames_of_a_live_source_and_no_memory(
    run: Run, sender: Sender, folder: Path
) -> None:
    sender.start(LARGE)
    child = run(sender.url, "-", "--json=facts.json", stdout=subprocess.PIPE)
    pipe = child.process.stdout
    assert pipe is not None
    frame_bytes = 360 * 640 * 3
    sizes = []
    for _ in range(50):
        assert len(pipe.read(frame_bytes)) == frame_bytes
        sizes.append(child.resident_mib())
        time.sleep(0.15)
    assert max(sizes[-10:]) - min(sizes[5:15]) < 40
    child.process.send_signal(signal.SIGINT)
    rest = len(pipe.read())
    assert rest % frame_bytes == 0
    assert child.end() == 130
    live = account_of(folder / "facts.json")
    assert live["processed"] == 50 + rest // frame_bytes
    assert live["dropped"] > 50


@pytest.mark.parametrize("form", ["rle", "classmap", "overlay"])
def test_a_reader_that_goes_ends_a_live_run_quietly(
    run: Run, sender: Sender, folder: Path, form: str
) -> None:
    sender.start()
    arguments = ("-", "--format", form, "--view", "http://127.0.0.1:0", "-q")
    child = run(sender.url, *arguments, stdout=subprocess.PIPE)
    assert child.process.stdout is not None
    assert child.process.stdout.read(1000)
    child.process.stdout.close()
    assert child.end() == 1
    assert "error" not in child.told
    assert "warning" not in child.told
    assert list(folder.iterdir()) == []


@pytest.fixture(params=["shim", "tmpfs"])
def full_disk(request: pytest.FixtureRequest, folder: Path) -> Iterator[dict[str, str]]:
    """The folder of the run on a small disk: the environment that makes it so."""
    if request.param == "shim":
        yield faulty_disk(folder.parent, folder, bytes=150_000)
        return
    # Every file takes pages of four kilobytes there.
    mounted(folder, 512 << 10)
    yield {}
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.parametrize("is_live", [False, True], ids=["file", "live"])
def test_a_full_disk_is_told_and_what_was_written_is_sound(
    run: Run, clip: Path, sender: Sender, folder: Path, full_disk: dict[str, str], is_live: bool
) -> None:
    source: str | Path = clip
    if is_live:
        sender.start("96x128")
        source = sender.url
    formats = ("--format", "overlay,classmap-png,rle")
    child = run(source, "o", *formats, "--json=../facts.json", environment=full_disk)
    assert child.end() == 1, child.told
    assert "No space left on device. Free space or choose another place" in child.told
    assert leftovers(folder) == []
    lines = len(lines_of(folder / "o.rle.jsonl"))
    pictures = len(pictures_of(folder / "o.classmap-png"))
    assert 0 <= pictures - lines <= 1
    plays(folder / "o.overlay.mp4", lines - HELD)
    if is_live:
        assert account_of(folder.parent / "facts.json")["processed"] == lines


# --- streams that change and streams that are damaged --------------------------------------------


@pytest.fixture
def station() -> Iterator[Station]:
    with Station() as serving:
        thread = threading.Thread(target=serving.serve_forever, args=(0.01,))
        thread.start()
        yield serving
        serving.shutdown()
        thread.join()


ONCE: Final = ("--drop", "none", "--reconnect-attempts", "0")


def test_a_size_that_changes_in_mid_stream_is_fitted_to_the_first(
    run: Run, station: Station, folder: Path
) -> None:
    station.content = transport(folder.parent / "a.ts", [Size(64, 96), Size(128, 192)], 50)
    child = run(station.url, "o", "--format", "overlay,rle", *ONCE, "--json=facts.json")
    # Without a length nobody can tell an end from a loss.
    assert child.end() in (0, 3), child.told
    assert "frame size changes from 64x96 to 128x192" in child.told
    live = account_of(folder / "facts.json")
    assert live["processed"] == frames_of(folder / "o.overlay.mp4") == 100
    assert {tuple(line["size"]) for line in lines_of(folder / "o.rle.jsonl")} == {(64, 96)}


@pytest.mark.parametrize("seed", range(6))
def test_a_damaged_stream_ends_with_an_account_and_files_that_play(
    run: Run, station: Station, folder: Path, seed: int
) -> None:
    whole = transport(folder.parent / "a.ts", [Size(96, 128)], 150)
    station.content = damaged(whole, seed)
    child = run(station.url, "o", "--format", "overlay,rle", *ONCE, "--json=facts.json")
    assert child.end() in (0, 3), child.told
    live = account_of(folder / "facts.json")
    assert 20 < live["processed"] <= 150 + 20
    assert frames_of(folder / "o.overlay.mp4") == live["processed"]
    times = [line["timestamp_s"] for line in lines_of(folder / "o.rle.jsonl")]
    assert len(times) == live["processed"]
    assert np.diff(times).min() > 0


# --- viewers -------------------------------------------------------------------------------------


def test_a_page_full_of_viewers_that_never_read_does_not_hold_up_the_end(
    run: Run, sender: Sender, folder: Path
) -> None:
    pytest.importorskip("uvicorn", reason="the extra [serve] is not installed")
    from fasterseg.serve.viewers import MAX_VIEWERS
    from tests.unit.serve.conftest import RawViewer

    sender.start(LARGE)
    child = run(sender.url, "o.mp4", "--view", "http://127.0.0.1:0", "--json=facts.json")
    child.wait_for(lambda: (folder / "o.mp4").exists(), "the video")
    url = child.told.partition("live page: ")[2].split()[0]
    stuck = [RawViewer(url) for _ in range(MAX_VIEWERS)]
    for viewer in stuck:
        for _ in range(2):
            viewer.say("ready")
    before_mib = child.resident_mib()
    time.sleep(5.0)
    assert child.resident_mib() - before_mib < 40
    began_s = time.monotonic()
    assert child.end(signal.SIGTERM) == 130
    assert time.monotonic() - began_s < 10
    for viewer in stuck:
        viewer.close()
    live = account_of(folder / "facts.json")
    assert live["processed"] == frames_of(folder / "o.mp4")
    # 25 a second come, and the viewers take nothing from them.
    assert live["processed"] > 5 * RATE / 2
