"""Small clips for tests that only need some video."""

from __future__ import annotations

from pathlib import Path

import av

from fasterseg.types import Size
from tests.parity import street_like


def write_clip(path: Path, count: int, size: Size, rate: int = 25) -> Path:
    """An H.264 file of `count` different pictures; sides must be even."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=rate)
        stream.width, stream.height, stream.pix_fmt = size.width, size.height, "yuv420p"
        for index in range(count):
            image = street_like(size, index)[0]
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="bgr24")))
        container.mux(stream.encode(None))
    return path
