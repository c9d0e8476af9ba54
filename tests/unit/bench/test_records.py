from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import fasterseg
from fasterseg.bench.cells import Cell, EndToEnd, LayerTime, Sharing
from fasterseg.bench.records import BenchRecord, current_commit, now
from fasterseg.bench.timing import FULL
from fasterseg.errors import ConfigError, OutputError, UsageError
from fasterseg.types import DeviceInfo, LatencyStats, Size

CELL_KEYS = {
    "engine", "precision", "device", "size", "batch", "tail", "threads",
    "model", "model_clock", "host_to_labels", "host_to_labels_cpu",
    "fps_model", "fps_host_to_labels", "cov_model", "cov_host_to_labels",
    "network", "peer", "streams", "throughput_fps", "by_stream", "sharing", "end_to_end",
    "verdict", "percentiles_ms", "rounds_ms", "layers",
    "label_agreement", "peak_rss_mb", "build_s", "first_run_ms", "warnings",
}  # fmt: skip
STATS_KEYS = {"count", "mean_ms", "std_ms", "min_ms", "p50_ms", "p90_ms", "p95_ms", "p99_ms"}
DEVICE_KEYS = {
    "id", "name", "arch", "driver", "cuda", "os", "runtimes", "sm_clock_mhz", "power_mode",
    "clocks_locked", "details",
}  # fmt: skip

CELL = Cell(
    engine="onnxruntime",
    precision="fp32",
    device="cpu",
    size=Size(512, 1024),
    batch=2,
    tail="graph",
    threads=1,
    host_to_labels=LatencyStats.of([40.0, 50.0, 60.0]),
    model=LatencyStats.of([20.0, 40.0, 60.0]),
    model_clock="host",
    host_to_labels_cpu=LatencyStats.of([50.0]),
    label_agreement=0.9995,
    peak_rss_mb=200.5,
    build_s=1.25,
    first_run_ms=80.0,
    warnings=("busy",),
)
RECORD = BenchRecord(
    device=DeviceInfo(
        id="box-2c",
        name="Box",
        arch="x86_64",
        driver=None,
        cuda=None,
        os="Linux",
        runtimes={"onnxruntime": "1.31.1"},
        details={"cpu": {"flags": ["avx2"], "mhz": None}, "load_average": 0.5},
    ),
    protocol=FULL,
    commit="abc",
    created="2026-11-22T10:11:12+00:00",
    model="tiny",
    trained=True,
    cells=(CELL,),
)


def changed(**values: Any) -> str:
    """The record's JSON with top-level keys replaced; None removes one."""
    data = {**json.loads(RECORD.to_json()), **values}
    return json.dumps({key: value for key, value in data.items() if value is not None})


def test_schema_is_stable() -> None:
    data = json.loads(RECORD.to_json())
    assert data["schema"] == 1
    assert set(data) == {
        "schema", "suite", "created", "commit", "model", "trained", "protocol", "device", "cells",
    }  # fmt: skip
    assert set(data["protocol"]) == {"name", "warmup_s", "warmup_runs", "min_runs", "min_s"}
    assert set(data["device"]) == DEVICE_KEYS
    (cell,) = data["cells"]
    assert set(cell) == CELL_KEYS
    for scope in ("model", "host_to_labels", "host_to_labels_cpu"):
        assert set(cell[scope]) == STATS_KEYS
    assert cell["size"] == "512x1024"


def test_rates_follow_from_the_median_and_the_batch() -> None:
    (cell,) = json.loads(RECORD.to_json())["cells"]
    assert cell["fps_host_to_labels"] == 40.0
    assert cell["fps_model"] == 50.0
    assert cell["cov_host_to_labels"] == pytest.approx(0.1633, abs=1e-4)
    assert cell["cov_model"] == pytest.approx(0.4082, abs=1e-4)


def test_unmeasured_model_scope_is_null() -> None:
    data = replace(CELL, model=None, model_clock=None).to_json()
    assert [data[key] for key in ("model", "model_clock", "fps_model", "cov_model")] == [None] * 4


def test_record_survives_json() -> None:
    again = BenchRecord.from_json(RECORD.to_json(), "x")
    assert again.to_json() == RECORD.to_json()
    assert again.cells[0].size == Size(512, 1024)
    assert again.cells[0].warnings == ("busy",)
    assert again.protocol == FULL
    assert again.device == RECORD.device


def no_time(statistic: str, ms: float) -> dict[str, Any]:
    """A cell whose call took a time that none takes."""
    cell = CELL.to_json()
    return {**cell, "host_to_labels": {**cell["host_to_labels"], statistic: ms}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ("[]", "schema 1"),
        (changed(schema=2), "found 2"),
        (changed(commit=None), "commit"),
        (changed(trained="yes"), "trained"),
        (changed(cells=[{"size": "512x1024", "fps": 3}]), "fps"),
        (changed(cells=[{**CELL.to_json(), "size": "big"}]), "big"),
        (changed(cells=[{**CELL.to_json(), "precision": "fp7"}]), "fp7"),
        (changed(cells=[{**CELL.to_json(), "batch": "2"}]), "batch"),
        (changed(cells=[{**CELL.to_json(), "batch": 10**400}]), "a batch of"),
        (changed(cells=[no_time("p50_ms", 0.0)]), r"some\.json: cells\[0\]: 0\.0 ms is no time"),
        (changed(cells=[no_time("min_ms", float("nan"))]), "nan ms is no time"),
        pytest.param("[" * 100_000, "not JSON", id="deep"),
        (changed(device={"id": "x"}), "device"),
        (changed(protocol="full"), "protocol"),
    ],
)
def test_damaged_record_is_refused_with_the_reason(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        BenchRecord.from_json(text, "some.json")


def test_unreadable_record_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read"):
        BenchRecord.load(tmp_path / "absent.json")


def test_saving_appends_and_never_overwrites(tmp_path: Path) -> None:
    paths = [
        RECORD.save(tmp_path),
        replace(RECORD, commit="def").save(tmp_path),
        replace(RECORD, commit="ghi").save(tmp_path),
    ]
    folder = tmp_path / "box-2c"
    assert paths == [
        folder / "2026-11-22-engines.json",
        folder / "2026-11-22-engines-2.json",
        folder / "2026-11-22-engines-3.json",
    ]
    assert [BenchRecord.load(path).commit for path in paths] == ["abc", "def", "ghi"]


def test_saving_without_the_runtimes_version_is_refused(tmp_path: Path) -> None:
    nameless = replace(RECORD, device=replace(RECORD.device, runtimes={"numpy": "2"}))
    with pytest.raises(UsageError, match="onnxruntime"):
        nameless.save(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_saving_where_a_file_is_in_the_way_says_so(tmp_path: Path) -> None:
    (tmp_path / "box-2c").write_text("")
    with pytest.raises(OutputError, match="box-2c"):
        RECORD.save(tmp_path)


def test_everything_a_cell_may_hold_survives_json() -> None:
    film = EndToEnd(
        source="a.mp4",
        source_size="720x1280",
        output="overlay",
        frames=9,
        seconds=0.5,
        fps=18.0,
        stages={"decode": LatencyStats.of([3.0])},
        bound_by="reader",
    )
    cell = replace(
        CELL,
        peer="STDC1",
        streams=4,
        throughput_fps=99.5,
        by_stream=(LatencyStats.of([30.0]), LatencyStats.of([40.0])),
        sharing=Sharing(4, 2.5, 9, 0.75, LatencyStats.of([1.5])),
        network=LatencyStats.of([30.0]),
        verdict="wrong",
        end_to_end=film,
        percentiles_ms={"host_to_labels": tuple(float(i) for i in range(101))},
        rounds_ms={"network": (1.0, 2.5)},
        layers=(LayerTime("stem", "Conv", 0.25),),
    )
    again = BenchRecord.from_json(replace(RECORD, cells=(cell,)).to_json(), "x").cells[0]
    assert again == replace(cell, host_to_labels=again.host_to_labels, model=again.model)
    assert again.to_json() == cell.to_json()


def test_a_list_of_numbers_takes_one_line() -> None:
    cell = replace(CELL, rounds_ms={"model": (1.0, -2.5, 1e-07)}, warnings=("a [1, 2] b",))
    text = replace(RECORD, cells=(cell,)).to_json()
    assert '"model": [ 1.0, -2.5, 0.0 ]' in text
    assert json.loads(text)["cells"][0]["warnings"] == ["a [1, 2] b"]


def test_records_written_before_are_read() -> None:
    new = {
        "network", "peer", "streams", "throughput_fps", "by_stream", "sharing", "end_to_end",
        "verdict", "percentiles_ms", "rounds_ms", "layers",
    }  # fmt: skip
    old = {key: value for key, value in CELL.to_json().items() if key not in new}
    cell = BenchRecord.from_json(changed(cells=[old]), "x").cells[0]
    assert (cell.streams, cell.sharing, cell.slowest_stream) == (1, None, None)


def test_commit_outside_a_checkout_is_the_version(tmp_path: Path) -> None:
    assert current_commit(tmp_path) == f"fasterseg {fasterseg.__version__}"


def test_commit_says_when_the_package_differs_from_it(tmp_path: Path) -> None:
    def git(*arguments: str) -> str:
        identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
        command = ["git", "-C", str(tmp_path), *identity, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    (tmp_path / "fasterseg").mkdir()
    (tmp_path / "fasterseg" / "a.py").write_text("1")
    git("init")
    git("add", ".")
    git("commit", "--no-verify", "-m", "one")
    head = git("rev-parse", "HEAD")
    assert current_commit(tmp_path) == head
    (tmp_path / "result.json").write_text("{}")
    assert current_commit(tmp_path) == head
    (tmp_path / "fasterseg" / "b.py").write_text("2")
    assert current_commit(tmp_path) == f"{head}-dirty"


def test_moment_is_utc_to_the_second() -> None:
    assert now().endswith("+00:00")
    assert "." not in now()
