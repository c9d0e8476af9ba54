"""3,000 mutated files: every one is read or refused, none crashes, hangs or shows a traceback."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.shared import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.onnx]

COUNTS = {
    "jpg": 300, "json": 700, "mkv": 250, "mp4": 600, "onnx": 450, "png": 250, "safetensors": 150,
    "toml": 300,
}  # fmt: skip
PAST_HEADER_SHARE = 0.2


def test_there_are_3000_cases() -> None:
    assert sum(COUNTS.values()) == 3000


@pytest.mark.parametrize("kind", sorted(COUNTS))
def test_mutated_files_are_read_or_refused(kind: str) -> None:
    command = [sys.executable, "-m", "tests.slow.fuzz", kind, "--count", str(COUNTS[kind])]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=1500, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]
    report = json.loads(done.stdout.strip().splitlines()[-1])
    assert report["cases"] == COUNTS[kind]
    assert not report["faults"], "\n".join(report["faults"][:5])
    assert report["past_header"] >= PAST_HEADER_SHARE * report["cases"], report
