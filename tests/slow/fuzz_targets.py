"""The table of everything that is fuzzed: 10,000 cases."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from tests.slow.fuzz_case import Target

_NOT_EVEN: Final = re.compile(r"is not (JSON|TOML|CSV)|is no UTF-8|cannot be (read|loaded)")
"""What is said of files that are not even what their endings say."""

TARGETS: Final[Mapping[str, Target]] = {
    "http": Target("fuzz_streams:http", 800),
    "jpg": Target("fuzz_files:jpg", 300),
    "json": Target("fuzz_files:trees", 700, _NOT_EVEN, 0.6),
    "mkv": Target("fuzz_files:mkv", 250),
    "mp4": Target("fuzz_files:mp4", 600),
    "onnx": Target("fuzz_files:engines", 450, re.compile("INVALID_PROTOBUF"), 0.5),
    "page": Target("fuzz_page:page", 1000),
    "pipe": Target("fuzz_streams:pipes", 700, floor=0.6),
    "plans": Target("fuzz_plans:plans", 1300, _NOT_EVEN, 0.6),
    "png": Target("fuzz_files:png", 250),
    "rtsp": Target("fuzz_streams:rtsp", 500, floor=0.3),
    "safetensors": Target("fuzz_files:weights", 150),
    "sidecars": Target("fuzz_sidecars:sidecars", 2300, _NOT_EVEN, 0.5),
    "sockets": Target("fuzz_page:sockets", 400, floor=0.15),
    "toml": Target("fuzz_files:recipes", 300, _NOT_EVEN, 0.3),
}
