"""What can be read, written, pushed and shown here: codecs, servers, windows, cameras."""

from __future__ import annotations

import io
import os
import re
import sys
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import av
import cv2
import numpy as np

from fasterseg.errors import OutputError
from fasterseg.finding import Finding
from fasterseg.stream.sinks_address import TRANSPORTS, target_of

DECODERS: Final[Mapping[str, tuple[str, ...]]] = {
    "h264": ("h264",),
    "hevc": ("hevc",),
    "vp9": ("vp9", "libvpx-vp9"),
    # FFmpeg's own "av1" only drives hardware.
    "av1": ("libdav1d", "libaom-av1", "libgav1"),
    "mpeg4": ("mpeg4",),
}
"""Codec of a video -> FFmpeg's names of what decodes it in software."""

PYAV_LINE: Final = "pip install --force-reinstall --only-binary av av"
BUILD_LINE: Final = (
    "pip install --force-reinstall --no-binary av av  # beside an FFmpeg that has it"
)
_SIDE: Final = 64


def codecs() -> list[Finding]:
    """Encoders, tried on two frames, and decoders of PyAV's FFmpeg."""
    return [
        _encoder("H.264", "libx264", "yuv420p", "mp4", needed=True),
        _encoder("FFV1", "ffv1", "gray", "matroska", needed=False),
        *(_decoder(codec, names) for codec, names in DECODERS.items()),
    ]


def _encoder(title: str, name: str, pixels: str, container: str, needed: bool) -> Finding:
    title = f"encoder {title}"
    try:
        frames = _round_trip(name, pixels, container)
    except (av.error.FFmpegError, av.codec.codec.UnknownCodecError) as error:
        return Finding(title, "broken", f"{name}: {error}", PYAV_LINE, needed)
    if frames != 2:
        return Finding(title, "broken", f"{name} lost frames", PYAV_LINE, needed)
    return Finding(title, "ok", name, needed=needed)


def _round_trip(name: str, pixels: str, container: str) -> int:
    """Encode two frames in memory; how many can be decoded."""
    file = io.BytesIO()
    with av.open(file, "w", format=container) as writer:
        stream: Any = writer.add_stream(name, rate=Fraction(25))
        stream.width, stream.height, stream.pix_fmt = _SIDE, _SIDE, pixels
        for _ in range(2):
            image = np.zeros((_SIDE, _SIDE), np.uint8)
            frame = av.VideoFrame.from_ndarray(image, format="gray").reformat(format=pixels)
            writer.mux(stream.encode(frame))
        writer.mux(stream.encode(None))
    file.seek(0)
    with av.open(file, "r") as reader:
        return len(list(reader.decode(video=0)))


def _decoder(codec: str, names: tuple[str, ...]) -> Finding:
    for name in names:
        try:
            av.Codec(name, "r")
        except av.codec.codec.UnknownCodecError:
            continue
        return Finding(f"decoder {codec}", "ok", name)
    detail = f"this FFmpeg has none of {', '.join(names)}"
    return Finding(f"decoder {codec}", "missing", detail, PYAV_LINE)


def push() -> list[Finding]:
    """To which kinds of server PyAV's FFmpeg can push; nothing is connected to."""
    absent = [scheme for scheme in TRANSPORTS if not _pushes(scheme)]
    there = [scheme for scheme in TRANSPORTS if scheme not in absent]
    found = [Finding("push to servers", "ok", ", ".join(there))] if there else []
    return found + [
        Finding(f"push to {scheme}", "missing", "this FFmpeg has none of it", BUILD_LINE)
        for scheme in absent
    ]


def _pushes(scheme: str) -> bool:
    try:
        target_of(f"{scheme}://127.0.0.1:9")
    except OutputError:
        return False
    return True


def windows() -> list[Finding]:
    """Whether pictures can be shown: OpenCV's windows, and a screen to show them on."""
    match = re.search(r"^\s+GUI:\s+(\S+)", cv2.getBuildInformation(), re.MULTILINE)
    toolkit = match[1] if match else "NONE"
    if toolkit == "NONE":
        window = Finding(
            "windows",
            "missing",
            f"OpenCV {cv2.__version__} is a headless build",
            "pip uninstall -y opencv-python-headless && pip install opencv-python",
        )
    else:
        window = Finding("windows", "ok", f"OpenCV {cv2.__version__}, {toolkit}")
    return [window, _screen()]


def _screen() -> Finding:
    if not sys.platform.startswith("linux"):
        return Finding("screen", "ok", sys.platform)
    for variable in ("WAYLAND_DISPLAY", "DISPLAY"):
        if value := os.environ.get(variable):
            return Finding("screen", "ok", f"{variable}={value}")
    return Finding(
        "screen",
        "missing",
        "neither DISPLAY nor WAYLAND_DISPLAY is set: no screen here, as on most servers",
        "ssh -X HOST  # from the machine with the screen; or write a file instead",
    )


def cameras(root: Path = Path("/")) -> list[Finding]:
    """Cameras of this machine, as `camera:N` would open them."""
    devices = sorted(root.glob("dev/video[0-9]*"), key=lambda path: int(path.name[5:]))
    found = [_camera(device, root) for device in devices]
    return found or [
        Finding(
            "cameras",
            "missing",
            "there is no /dev/video*",
            "docker run --device /dev/video0 ...  # in a container; else plug a camera in",
        )
    ]


def _camera(device: Path, root: Path) -> Finding:
    title = f"camera:{device.name[5:]}"
    try:
        name = (root / "sys/class/video4linux" / device.name / "name").read_text().strip()
    except OSError:
        name = "unknown"
    if not os.access(device, os.R_OK | os.W_OK):
        remedy = 'sudo usermod -aG video "$USER"  # then log in again'
        return Finding(title, "broken", f"{name}: no permission for /dev/{device.name}", remedy)
    return Finding(title, "ok", f"{name} (/dev/{device.name})")


def gstreamer() -> list[Finding]:
    """Whether OpenCV opens GStreamer pipelines (cameras on the ribbon cable of a Jetson)."""
    match = re.search(r"^\s+GStreamer:\s+YES(?: \((\S+)\))?", cv2.getBuildInformation(), re.M)
    if match:
        return [Finding("GStreamer", "ok", f"OpenCV has it{f', {match[1]}' if match[1] else ''}")]
    return [
        Finding(
            "GStreamer",
            "missing",
            "OpenCV from PyPI is built without it; only pipeline strings need it",
            "sudo apt install python3-opencv  # and a venv made with --system-site-packages",
        )
    ]
