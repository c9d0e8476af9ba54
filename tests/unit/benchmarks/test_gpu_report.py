"""The table of a GPU run and where its records go."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fasterseg.bench.records import BenchRecord
from fasterseg.bench.timing import FULL, QUICK
from fasterseg.errors import OutputExistsError, UsageError
from fasterseg.types import DeviceInfo, LatencyStats

EAGER = "torch eager, as the original"
COMPILED = "torch.compile max-autotune"
FACTS = {
    "trial": False, "source": "abc", "device": "h200", "commit": "1234",
    "model": "fasterseg-camvid",
}  # fmt: skip
DEVICE = DeviceInfo(
    id="h200", name="NVIDIA H200", arch="sm_90", driver="580", cuda=None, os="Linux",
    runtimes={"torch": "2.11.0"}, sm_clock_mhz=1980, details={"cpu": {}},
)  # fmt: skip


@pytest.fixture(scope="module")
def report(scripts: None) -> Any:
    return importlib.import_module("gpu_report")


@pytest.fixture
def state(scripts: None, tmp_path: Path) -> Any:
    gpu_run = importlib.import_module("gpu_run")
    state = gpu_run.State.load(tmp_path / "run.json")
    state.begin(FACTS)
    return state


def add(
    state: Any, name: str, result: Any, outcome: str = "done", error: str | None = None
) -> None:
    ended = importlib.import_module("gpu_run").Ended(outcome, 1.0, error, result)
    state.add(name, ended, {"before": None, "after": {"clocks.sm": "1965 MHz"}})


def stats(ms: float) -> dict[str, Any]:
    return LatencyStats.of([ms] * 5).to_json()


def row(name: str, ms: float, times: tuple[float, float]) -> dict[str, Any]:
    faster = {
        base: {"p50": value, "p10": value, "p90": value, "rounds": 5}
        for base, value in zip((EAGER, COMPILED), times, strict=True)
    }
    return {
        "name": name, "precision": "fp16", "device": stats(ms),
        "facts": {"variant": "lanes2", "peak_mb": 321.0},
        "host_to_labels": stats(ms + 1), "agreement": 0.9996, "faster": faster,
    }  # fmt: skip


def cell(size: str, batch: int = 1) -> dict[str, Any]:
    return {
        "engine": "torch", "precision": "fp16", "device": "cuda", "size": size, "batch": batch,
        "tail": "kernel", "threads": None, "host_to_labels": stats(1.0), "model": stats(0.4),
        "model_clock": "device",
    }  # fmt: skip


def bench_result(size: str, ms: float, protocol: Any = FULL, batch: int = 1) -> dict[str, Any]:
    return {
        "size": size, "batch": batch, "model": "fasterseg-camvid",
        "floors_us": {"fasterseg-camvid pass stated": 106.9}, "protocol": protocol.to_json(),
        "rows": [row(EAGER, 2.0, (1.0, 0.8)), row("engine fp16", ms, (5.0, 4.0))],
        "absent": {"variant compiled": "not compiled"}, "cells": [cell(size, batch)],
    }  # fmt: skip


@pytest.fixture
def full(state: Any) -> Any:
    """A run that did everything."""
    add(state, "environment", {"device": DEVICE.to_json(), "gpu": {"driver_version": "580"}})
    add(state, "bench-1024x2048", bench_result("1024x2048", 0.4))
    add(state, "bench-512x1024", bench_result("512x1024", 0.3))
    runs = [{"cache": "empty"}, {"cache": "warm"}]
    times = {"open_to_first_labels_s": 1.5, "process_s": 6.0}
    add(state, "cold", {"runs": [{**run, **times} for run in runs]})
    return state


def test_aims_are_said_to_be_reached_or_missed(report: Any, full: Any) -> None:
    text = list(report.lines(full))
    assert "reached  1024x2048: engine fp16, images/s: 2500.00 (aim 2000)" in text
    assert "MISSED   512x1024: engine fp16, images/s: 3333.33 (aim 4000)" in text
    assert "reached  1024x2048: times faster than torch.compile: 4.00 (aim 3)" in text
    assert "reached  cold start, seconds: 1.50 (aim 2)" in text
    assert not any("b8" in line for line in text)


def test_the_table_has_the_share_of_the_floor_and_who_is_absent(report: Any, full: Any) -> None:
    text = "\n".join(report.lines(full))
    ours = next(line for line in text.splitlines() if "engine fp16 (lanes2)" in line)
    assert "2500" in ours
    assert "27%" in ours  # 106.9 of 400 us
    assert "99.960" in ours
    assert "variant compiled: not compiled" in text
    assert "engine fp16 321" in text
    assert text.index("engine fp16 (lanes2)") < text.index("torch eager")
    assert "1965 MHz" in text


def test_steps_that_are_not_done_are_named(report: Any, state: Any) -> None:
    add(state, "parity", None, "failed", "exit code 1\nParityError: bf16 is wrong")
    labels = {"engine bf16": {"error": "no memory", "passed": False}}
    add(state, "layers", {"labels": labels}, "out of time", "ended after 5 s")
    text = "\n".join(report.lines(state))
    assert "parity: FAILED: ParityError: bf16 is wrong" in text
    assert "layers: OUT OF TIME" in text


def test_wrong_labels_and_scores_are_called_wrong(report: Any, state: Any) -> None:
    right = {
        "agreement": 0.9995, "threshold": 0.999, "worst_margin": 0.1, "margin_allowed": 0.2,
        "passed": True,
    }  # fmt: skip
    labels = {"engine fp16": right, "variant x": {**right, "passed": False}}
    scores = {"bf16 test": {"miou": 61.0, "difference": -0.4, "passed": False}}
    add(state, "parity", {"labels": labels, "miou": scores})
    text = "\n".join(report.lines(state))
    assert "right engine fp16: 99.9500 %" in text
    assert "WRONG variant x" in text
    assert "WRONG mIoU bf16 test: 61.00 (-0.400)" in text


def test_layers_far_above_their_floor_come_first(report: Any, state: Any) -> None:
    rows = [
        {"name": name, "kind": "conv", "us": us, "floor_us": floor, "bound": "memory"}
        for name, us, floor in (("a", 10.0, 9.5), ("b", 5.0, 1.0), ("c", 1.0, None))
    ]
    add(state, "layers", {"rows": rows, "variant": "lanes2", "sum_us": 16.0})
    text = [line.split()[0] for line in [*report.lines(state)][-3:]]
    assert text == ["b", "c", "a"]


def test_a_trial_says_that_nothing_is_a_measurement(report: Any, full: Any) -> None:
    full.begin({**FACTS, "trial": True})
    text = list(report.lines(full))
    assert text[0].startswith("TRIAL")
    assert not any("aim" in line for line in text)


def test_cells_become_records_one_a_protocol(report: Any, full: Any, tmp_path: Path) -> None:
    add(full, "bench-1024x2048-b8", bench_result("1024x2048", 2.0, QUICK, 8))
    paths = report.write_records(full, tmp_path)
    assert sorted(path.name for path in paths) == ["record-full.json", "record-quick.json"]
    record = BenchRecord.load(tmp_path / "record-full.json")
    assert [str(one.size) for one in record.cells] == ["1024x2048", "512x1024"]
    assert (record.commit, record.device.id, record.trained) == ("1234", "h200", True)


def test_no_record_without_a_device(report: Any, state: Any) -> None:
    add(state, "bench-512x1024", bench_result("512x1024", 0.3))
    assert report.records(state) == []


def test_results_are_put_where_records_are_kept_and_replace_nothing(
    report: Any, full: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evidence = tmp_path / "evidence" / "h200" / "2026-11-24.json"
    evidence.parent.mkdir(parents=True)
    evidence.write_text("{}")
    (tmp_path / "table.json").write_text("{}")
    table = SimpleNamespace(
        report={}, backend="torch", precision="fp16", size="1024x2048", device=DEVICE
    )
    monkeypatch.setattr(report, "TableFile", SimpleNamespace(load=lambda path: table))
    benchmarks = tmp_path / "benchmarks"
    first = report.keep(tmp_path, benchmarks)
    day = full.facts["created"][:10]
    assert [path.relative_to(benchmarks).as_posix() for path in first] == [
        f"results/h200/{day}-gpu.json",
        f"comparisons/h200/{day}-gpu.json",
        "evidence/h200/2026-11-24.json",
        "tables/h200/torch-fp16-1024x2048.json",
    ]
    assert json.loads(first[1].read_text())["kind"] == "gpu-run"
    with pytest.raises(OutputExistsError, match="move it away"):
        report.keep(tmp_path, benchmarks)
    assert not (benchmarks / "comparisons/h200" / f"{day}-gpu-2.json").exists()
    (tmp_path / "table.json").unlink()
    assert (benchmarks / "comparisons/h200" / f"{day}-gpu-2.json") in report.keep(
        tmp_path, benchmarks
    )


def test_a_table_that_was_not_judged_is_not_kept(
    report: Any, full: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "table.json").write_text("{}")
    unjudged = SimpleNamespace(load=lambda path: SimpleNamespace(report=None))
    monkeypatch.setattr(report, "TableFile", unjudged)
    report.keep(tmp_path, tmp_path / "benchmarks")
    assert not (tmp_path / "benchmarks" / "tables").exists()


def test_a_folder_without_a_run_or_with_a_trial_is_refused(
    report: Any, full: Any, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=r"gpu\.py keep FOLDER"):
        report.keep(None, tmp_path)
    full.begin({**FACTS, "trial": True})
    full.save()
    with pytest.raises(UsageError, match="measured nothing"):
        report.keep(tmp_path, tmp_path / "benchmarks")
