from __future__ import annotations

import json
from pathlib import Path

import pytest

from fasterseg.errors import OutputError
from fasterseg.search.journal import Journal, Meter, read_log


def steps(journal: Journal) -> list[int]:
    return [json.loads(line)["step"] for line in journal.path.read_text().splitlines()]


def test_a_resumed_log_forgets_what_will_be_done_again(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    for step in (25, 50, 75):
        journal.write({"step": step})
    with journal.path.open("a") as file:
        file.write('{"step": 1')
    journal.trim(50)
    assert steps(journal) == [25, 50]
    journal.write({"step": 60})
    assert steps(journal) == [25, 50, 60]


def test_trimming_without_a_log_is_nothing(tmp_path: Path) -> None:
    Journal(tmp_path).trim(5)
    assert list(tmp_path.iterdir()) == []


def test_a_log_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot write"):
        Journal(tmp_path / "absent").write({"step": 1})


def test_listeners_hear_what_is_in_the_log(tmp_path: Path) -> None:
    class Ear:
        def __init__(self) -> None:
            self.heard: list[object] = []

        def write(self, record: dict[str, object]) -> None:
            self.heard.append(record)

        def trim(self, step: int) -> None:
            self.heard.append(step)

    journal, ear = Journal(tmp_path), Ear()
    journal.listeners.append(ear)
    journal.trim(0)
    journal.write({"step": 1})
    assert ear.heard == [0, {"step": 1}]
    broken = Journal(tmp_path / "absent")
    broken.listeners.append(ear)
    with pytest.raises(OutputError):
        broken.write({"step": 2})
    assert len(ear.heard) == 2


def test_a_log_is_read_without_the_line_that_a_kill_cut_short(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    assert journal.read() == []
    journal.write({"step": 1, "lr": 0.5})
    with journal.path.open("a") as file:
        file.write('{"step": 2')
    assert read_log(journal.path) == journal.read() == [{"step": 1, "lr": 0.5}]


@pytest.mark.parametrize(
    "line",
    [
        b"\xff\xfe",
        b"{}",
        b"[]",
        b"7",
        b'{"step": []}',
        b'{"step": Infinity}',
        pytest.param(b"[" * 100_000, id="deep"),
    ],
)
def test_lines_that_are_no_records_are_left_out(tmp_path: Path, line: bytes) -> None:
    journal = Journal(tmp_path)
    journal.write({"step": 1})
    with journal.path.open("ab") as file:
        file.write(line + b"\n")
    journal.write({"step": 2})
    assert journal.read() == [{"step": 1}, {"step": 2}]
    journal.trim(1)
    assert journal.path.read_bytes() == b'{"step": 1}\n'


def test_a_meter_gives_means_and_starts_anew() -> None:
    meter = Meter()
    meter.add({"loss": 1.0})
    meter.add({"loss": 3.0})
    means, steps_per_s = meter.read()
    assert means == {"loss": 2.0}
    assert steps_per_s > 0
    meter.add({"loss": 7.0})
    assert meter.read()[0] == {"loss": 7.0}
