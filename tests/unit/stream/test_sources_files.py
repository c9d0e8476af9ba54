from __future__ import annotations

import os
import shutil
import struct
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest

from fasterseg.errors import SourceError, UsageError
from fasterseg.stream.sources import Kind, open_source
from fasterseg.stream.sources_files import PictureSource, natural_key
from fasterseg.stream.sources_options import SourceOptions
from fasterseg.types import Size
from tests.contract.source import SourceContract
from tests.unit.stream.conftest import number_of, numbered, solid, write_picture


class TestOnePicture(SourceContract):
    kind: Kind = "image"
    count = 1

    @pytest.fixture
    def uri(self, tmp_path: Path) -> str:
        return str(write_picture(tmp_path / "street.png", solid((10, 20, 30))))


class TestFolder(SourceContract):
    kind: Kind = "images"

    @pytest.fixture
    def uri(self, tmp_path: Path) -> str:
        for index, picture in enumerate(numbered(self.count)):
            write_picture(tmp_path / "frames" / f"{index}.png", picture)
        return str(tmp_path / "frames")


class TestPattern(SourceContract):
    kind: Kind = "images"

    @pytest.fixture
    def uri(self, tmp_path: Path) -> str:
        for index, picture in enumerate(numbered(self.count)):
            write_picture(tmp_path / "frames" / f"{index}.png", picture)
            write_picture(tmp_path / "frames" / f"{index}.jpg", picture)
        return str(tmp_path / "frames" / "*.png")


def test_pictures_come_in_natural_order(tmp_path: Path) -> None:
    for index, picture in enumerate(numbered(12)):
        write_picture(tmp_path / f"f{index}.png", picture)
    (tmp_path / "notes.txt").write_text("not a picture")
    frames = list(open_source(str(tmp_path)))
    assert [frame.name for frame in frames] == [f"f{index}.png" for index in range(12)]
    assert [number_of(frame.image) for frame in frames] == list(range(12))


def test_natural_key_takes_any_digits() -> None:
    names = ["a²", "A10", "a9", "10", "b"]
    ordered = sorted((Path(name) for name in names), key=natural_key)
    assert [str(path) for path in ordered] == ["10", "a9", "A10", "a²", "b"]


def test_pixels_of_a_png_are_exact_and_bgr(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    (frame,) = open_source(str(write_picture(tmp_path / "a.png", image)))
    np.testing.assert_array_equal(frame.image, image)


def test_grey_and_transparent_pictures_become_bgr(tmp_path: Path) -> None:
    write_picture(tmp_path / "grey.png", np.full((4, 6), 90, np.uint8))
    write_picture(tmp_path / "rgba.png", np.full((4, 6, 4), (1, 2, 3, 200), np.uint8))
    grey, transparent = open_source(str(tmp_path))
    assert (grey.image == 90).all()
    assert (transparent.image == (1, 2, 3)).all()


def test_sizes_may_differ_between_pictures(tmp_path: Path) -> None:
    write_picture(tmp_path / "a.png", solid((0, 0, 0), Size(4, 6)))
    write_picture(tmp_path / "b.png", solid((0, 0, 0), Size(8, 2)))
    source = open_source(str(tmp_path))
    assert source.size == Size(4, 6)
    assert [frame.size for frame in source] == [Size(4, 6), Size(8, 2)]


def test_exif_rotation_is_applied(tmp_path: Path) -> None:
    image = solid((0, 0, 0), Size(32, 48))
    image[:, :24] = 255
    jpeg = cv2.imencode(".jpg", image)[1].tobytes()
    # Orientation 6: turn clockwise to see it upright.
    entry = struct.pack("<HHIHH", 0x0112, 3, 1, 6, 0)
    tiff = b"II*\0" + struct.pack("<IH", 8, 1) + entry + struct.pack("<I", 0)
    exif = b"Exif\0\0" + tiff
    path = tmp_path / "turned.jpg"
    path.write_bytes(jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + jpeg[2:])
    (frame,) = open_source(str(path))
    assert frame.size == Size(48, 32)
    assert frame.image[:20].mean() > 200 > 50 > frame.image[28:].mean()


def test_one_damaged_picture_among_many_is_left_out_with_a_warning(tmp_path: Path) -> None:
    for index, picture in enumerate(numbered(3)):
        write_picture(tmp_path / f"{index}.png", picture)
    (tmp_path / "1.png").write_text("not a picture")
    source = open_source(str(tmp_path))
    frames = list(source)
    assert [(frame.index, number_of(frame.image)) for frame in frames] == [(0, 0), (2, 2)]
    assert len(source.warnings) == 1
    assert "1.png is damaged or not a picture" in source.warnings[0]
    assert source.lost_frames == 1


def test_limit_counts_pictures_that_could_be_read(tmp_path: Path) -> None:
    for index, picture in enumerate(numbered(3)):
        write_picture(tmp_path / f"{index}.png", picture)
    (tmp_path / "0.png").write_bytes(b"")
    assert [frame.index for frame in open_source(str(tmp_path), SourceOptions(limit=2))] == [1, 2]


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"", r"is empty \(0 bytes\)"), (b"text", "is damaged or not a picture.*png")],
)
def test_single_picture_that_cannot_be_decoded_is_an_error(
    tmp_path: Path, content: bytes, reason: str
) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(content)
    with pytest.raises(SourceError, match=f"^{path} {reason}"):
        open_source(str(path))


def test_folder_of_damaged_pictures_is_an_error(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_text("no")
    with pytest.raises(SourceError, match=r"no picture of .* can be decoded.*a\.png"):
        open_source(str(tmp_path))


def test_folder_without_pictures_names_the_video_in_it(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"holds no pictures.*Give a folder") as caught:
        open_source(str(tmp_path))
    assert caught.value.exit_code == 3
    (tmp_path / "drive.mp4").touch()
    with pytest.raises(SourceError, match=r"holds no pictures.*drive\.mp4"):
        open_source(str(tmp_path))


def test_pattern_without_a_match_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"no picture matches .*\*\.png"):
        open_source(str(tmp_path / "*.png"))


def test_names_are_relative_to_the_folder_all_pictures_share(tmp_path: Path) -> None:
    for city in ("aachen", "bonn"):
        write_picture(tmp_path / "val" / city / "1.png", solid((9, 9, 9)))
    source = open_source(str(tmp_path / "val" / "**" / "*.png"))
    assert [frame.name for frame in source] == ["aachen/1.png", "bonn/1.png"]
    assert source.stem == "val"


def test_home_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    write_picture(tmp_path / "a.png", solid((9, 9, 9)))
    assert len(list(open_source("~/a.png"))) == 1


def test_picture_that_vanishes_is_left_out(tmp_path: Path) -> None:
    for index, picture in enumerate(numbered(3)):
        write_picture(tmp_path / "frames" / f"{index}.png", picture)
    source = PictureSource(str(tmp_path / "frames"))
    shutil.rmtree(tmp_path / "frames")
    assert [frame.index for frame in source] == [0]
    assert len(source.warnings) == 2
    assert "cannot read" in source.warnings[0]


class TestNumberedPattern(SourceContract):
    kind: Kind = "images"

    @pytest.fixture
    def uri(self, tmp_path: Path) -> str:
        for index, picture in enumerate(numbered(self.count)):
            write_picture(tmp_path / "frames" / f"{index + 97:04d}.png", picture)
        return str(tmp_path / "frames" / "%04d.png")


def names_of(uri: str) -> list[str]:
    """Names of the pictures a source gives."""
    return [frame.name for frame in open_source(uri)]


def test_printf_pattern_takes_what_printf_would_write(tmp_path: Path) -> None:
    for name in ("f8", "f08", "f008", "f010", "f1000", "f01000", "f009x", "g011", "f"):
        write_picture(tmp_path / f"{name}.png", solid((9, 9, 9)))
    assert names_of(f"{tmp_path}/f%03d.png") == ["f008.png", "f010.png", "f1000.png"]
    assert names_of(f"{tmp_path}/f%d.png") == ["f8.png", "f1000.png"]
    with pytest.raises(SourceError, match=r"no picture matches .*h%d\.png"):
        open_source(f"{tmp_path}/h%d.png")
    with pytest.raises(SourceError, match="no picture matches"):
        open_source(f"{tmp_path}/gone/%d.png")


def test_printf_pattern_takes_other_signs_literally(tmp_path: Path) -> None:
    for name in ("50%_[a]*1", "50%_[a]*2", "50%_a3"):
        write_picture(tmp_path / f"{name}.png", solid((9, 9, 9)))
    assert names_of(f"{tmp_path}/50%%_[a]*%d.png") == ["50%_[a]*1.png", "50%_[a]*2.png"]


@pytest.mark.parametrize("name", ["100%.png", "%d.png", "a*b.png", "[1].png", "what?.png"])
def test_file_named_like_a_pattern_is_that_file(tmp_path: Path, name: str) -> None:
    write_picture(tmp_path / "1.png", solid((9, 9, 9)))
    write_picture(tmp_path / "aXb.png", solid((9, 9, 9)))
    path = write_picture(tmp_path / name, solid((1, 2, 3)))
    source = open_source(str(path))
    assert source.files == (path,)
    assert source.kind == "image"


def test_folder_named_like_a_pattern_is_taken_literally(tmp_path: Path) -> None:
    write_picture(tmp_path / "run[1]" / "a.png", solid((1, 2, 3)))
    write_picture(tmp_path / "run1" / "b.png", solid((1, 2, 3)))
    assert names_of(f"{tmp_path}/run[1]/*.png") == ["a.png"]
    assert names_of(f"{tmp_path}/run[1]") == ["a.png"]
    assert names_of(f"{tmp_path}/r*[1]/*.png") == ["b.png"]


def test_name_that_is_not_utf8_is_read_and_gives_a_name_that_is(tmp_path: Path) -> None:
    folder = os.fsencode(tmp_path / "stra")
    os.mkdir(folder + b"\xdfe")  # noqa: PTH102
    data = cv2.imencode(".png", solid((1, 2, 3)))[1].tobytes()
    for name in (b"stra\xdfe.png", b"\xff.png"):
        Path(os.fsdecode(folder + b"\xdfe/" + name)).write_bytes(data)
    source = open_source(os.fsdecode(folder + b"\xdfe"))
    assert len(list(source)) == 2
    assert source.stem == "stra�e"
    assert open_source(os.fsdecode(folder + b"\xdfe/stra\xdfe.png")).stem == "stra�e"


def test_longest_file_name_leaves_room_for_the_outputs_name(tmp_path: Path) -> None:
    path = write_picture(tmp_path / f"{'ä' * 125}.png", solid((1, 2, 3)))
    assert len(os.fsencode(path.name)) == 254
    source = open_source(str(path))
    assert len(source.stem.encode()) <= 180
    assert set(source.stem) == {"ä"}


def test_bad_pictures_are_named_up_to_ten_and_then_counted(tmp_path: Path) -> None:
    write_picture(tmp_path / "00.png", solid((1, 2, 3)))
    for index in range(1, 31):
        (tmp_path / f"{index:02d}.png").write_bytes(b"no")
    source = open_source(str(tmp_path))
    assert len(list(source)) == 1
    assert source.lost_frames == 30
    assert len(source.warnings) == 11
    assert "10.png is damaged" in source.warnings[9]
    assert source.warnings[10] == "left out: 20 more pictures that cannot be read"


def test_animations_among_pictures_are_left_out_with_a_warning(tmp_path: Path) -> None:
    write_picture(tmp_path / "a.png", solid((1, 2, 3)))
    still = write_picture(tmp_path / "b.png", solid((1, 2, 3))).read_bytes()
    control = struct.pack(">I4sIII", 8, b"acTL", 2, 0, 0)
    (tmp_path / "b.png").write_bytes(still[:33] + control + still[33:])
    (tmp_path / "c.gif").touch()
    source = open_source(str(tmp_path))
    assert [frame.name for frame in source] == ["a.png"]
    assert source.lost_frames == 1
    assert "1 animations (GIF, APNG) beside the pictures are not read" in source.warnings[0]
    assert "b.png is an animation; give it alone" in source.warnings[1]


def test_pictures_have_no_times_to_start_or_thin_out_by(tmp_path: Path) -> None:
    path = str(write_picture(tmp_path / "a.png", solid((1, 2, 3))))
    with pytest.raises(UsageError, match=r"--start needs times.*a\.png"):
        open_source(path, SourceOptions(start_s=1.0))
    with pytest.raises(UsageError, match="--max-fps needs times"):
        open_source(path, SourceOptions(max_fps=Fraction(5)))


def test_folder_that_may_not_be_listed_names_its_permissions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(SourceError, match=r"cannot list .*: Permission denied; check its permis"):
        open_source(str(tmp_path))
