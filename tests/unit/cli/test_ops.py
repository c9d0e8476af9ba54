"""`fasterseg-bench ops` and `calibrate` as programs: what they print, refuse and leave behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from fasterseg.arch.genotype import Branch, Genotype
from fasterseg.arch.latency import LatencyTable
from fasterseg.arch.plan import plan
from fasterseg.bench import calibrate as calibration
from fasterseg.bench import draw as drawing
from fasterseg.bench import engines, snippets
from fasterseg.bench.tables import TableFile
from fasterseg.bench.timing import TimingProtocol
from fasterseg.cli.calibration import report_lines
from fasterseg.types import Size
from tests.shared import ROOT
from tests.unit.bench.table_fakes import Machine, Opened
from tests.unit.cli.conftest import Run

SPACE = """
layers = 4
ops = ["conv", "skip"]
widths = [4, 6]
stem_widths = [4]
head_widths = [4]
num_classes = 5
"""
GENOTYPE = Genotype("tiny", 5, 4, 4, (Branch(("conv", "conv_downup"), (8, 16), (4,)),))
QUICK = (
    *("--size", "64x128", "--threads", "1", "--tail", "graph"),
    *("--space", "space.toml", "--table", "t.json"),
)
ORIGINAL = ROOT / "benchmarks/tables/gtx1080ti-original/tensorrt5.1-fp32-1024x2048.json"


@pytest.fixture
def program(run: Run, monkeypatch: pytest.MonkeyPatch) -> Run:
    """The program on a machine that is instant: graphs do nothing, and networks little."""
    machine = Machine()
    monkeypatch.setattr(snippets, "snippet_opener", lambda *_: machine.open_graph)
    monkeypatch.setattr("fasterseg.bench.ops.Clocks", lambda: machine.clocks)
    monkeypatch.setattr("fasterseg.bench.calibrate.Clocks", lambda: machine.clocks)
    opened = Opened(machine, lambda genotype: 1.0 + plan(genotype, Size(64, 128)).macs / 1e7)
    monkeypatch.setattr(snippets, "network_opener", lambda *_: opened)
    monkeypatch.setattr(
        engines, "render_frames", lambda size, batch, count: [np.zeros((1, *size, 3), np.uint8)]
    )
    monkeypatch.setattr("fasterseg.bench.begin.ROW", TimingProtocol("row", 0, 1, 2))
    monkeypatch.setattr(drawing.draw, "__defaults__", (6, 6))
    # What else runs on the machine of the tests is nothing to the one that is played.
    monkeypatch.setattr("fasterseg.bench.quiet.quiet_for", lambda *_: None)
    Path("space.toml").write_text(SPACE, encoding="utf-8")
    Path("tiny.json").write_text(json.dumps(GENOTYPE.to_json()), encoding="utf-8")
    return run


def test_a_table_is_measured_and_any_network_of_the_space_has_a_price(program: Run) -> None:
    outcome = program("bench", "ops", *QUICK)
    assert outcome.code == 0, outcome.stderr
    assert "operators measured" in outcome.stdout
    assert "fasterseg-bench calibrate --table t.json" in outcome.stdout
    file = TableFile.load(Path("t.json"))
    assert file.space is not None
    assert file.missing(file.space.specs(file.size)) == []


@pytest.mark.torch
def test_the_torch_engine_has_tables_too(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch", reason="torch not installed")
    monkeypatch.setattr("fasterseg.bench.begin.ROW", TimingProtocol("row", 0, 1, 2))
    monkeypatch.setattr("fasterseg.bench.quiet.quiet_for", lambda *_: None)
    Path("tiny.json").write_text(json.dumps(GENOTYPE.to_json()), encoding="utf-8")
    torch_on_cpu = ("--engine", "torch", "--device", "cpu", "--size", "64x128")
    outcome = run("bench", "ops", *torch_on_cpu, "--model", "tiny.json", "--table", "t.json")
    assert outcome.code == 0, outcome.stderr
    assert "torch fp32 on" in outcome.stderr
    file = TableFile.load(Path("t.json"))
    assert (file.backend, file.conditions["tail"]) == ("torch", "torch")
    assert file.table().price(plan(GENOTYPE, Size(64, 128))).ms > 0
    refused = run("bench", "ops", *torch_on_cpu, "--tail", "native")
    assert refused.code == 2
    assert "has a last step of its own" in refused.stderr


def test_rows_that_vary_are_counted_in_a_warning(program: Run) -> None:
    program("bench", "ops", *QUICK)
    file = TableFile.load(Path("t.json"))
    for row in list(file.rows.values())[:3]:
        row["cov"] = 0.4
    file.save()
    outcome = program("bench", "ops", *QUICK)
    assert f"warning: 3 of {len(file.rows)} rows vary by more than 10%" in outcome.stderr


def test_by_default_a_table_lies_under_its_device(program: Run) -> None:
    assert program("bench", "ops", "--size", "64x128", "--model", "tiny.json").code == 0
    [path] = Path("benchmarks/tables").glob("*/onnxruntime-fp32-64x128.json")
    table = LatencyTable.load(path)
    assert path.parent.name == table.device.id
    assert table.price(plan(GENOTYPE, Size(64, 128))).left_out == {}


def test_a_dry_run_measures_and_writes_nothing(program: Run) -> None:
    outcome = program("bench", "ops", *QUICK, "--dry-run")
    assert outcome.code == 0
    assert "operators to measure at 64x128" in outcome.stderr
    assert "roughly" in outcome.stderr
    assert not Path("t.json").exists()


def test_a_limit_leaves_a_table_that_the_same_command_finishes(program: Run) -> None:
    first = program("bench", "ops", *QUICK, "--limit-minutes", "0.0001")
    assert first.code == 0
    assert "are left; the same command goes on" in first.stdout
    before = TableFile.load(Path("t.json")).rows
    assert program("bench", "ops", *QUICK).code == 0
    after = TableFile.load(Path("t.json")).rows
    assert len(after) > len(before) > 0
    assert {key: after[key] for key in before} == before


def test_missing_only_takes_the_settings_of_the_table(program: Run) -> None:
    program("bench", "ops", *QUICK, "--limit-minutes", "0.0001")
    outcome = program("bench", "ops", "--table", "t.json", "--missing-only")
    assert outcome.code == 0, outcome.stderr
    file = TableFile.load(Path("t.json"))
    assert str(file.size) == "64x128"
    assert file.conditions["threads"] == 1


def test_missing_only_needs_a_table(program: Run) -> None:
    outcome = program("bench", "ops", "--table", "absent.json", "--missing-only")
    assert outcome.code == 2
    assert "cannot read absent.json" in outcome.stderr


def test_overwrite_measures_anew(program: Run) -> None:
    program("bench", "ops", *QUICK)
    first = TableFile.load(Path("t.json"))
    assert program("bench", "ops", *QUICK, "--seed", "1", "--overwrite").code == 0
    second = TableFile.load(Path("t.json"))
    assert first.draw is not None
    assert second.draw is not None
    assert (first.draw["seed"], second.draw["seed"]) == (0, 1)
    assert len(second.runs) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--size", "big"), "'big' is not HEIGHTxWIDTH"),
        (("--size", "32x64"), "too small"),
        (("--engine", "openvin"), "onnxruntime"),
        (("--precision", "bf16"), "fp32 or fp16 or int8"),
        (("--statistic", "mean"), "p50"),
        (("--classes", "500"), "500"),
        (("--space", "absent.toml"), "cannot read absent.toml"),
        (("--model", "nobody"), "fasterseg-camvid"),
        (("--missing-only", "--overwrite"), "give one"),
        (("--threads", "2"), "threads 1, and is asked for threads 2"),
        (("--statistic", "min"), "prices by p50"),
    ],
)
def test_bad_options_are_told_before_anything_is_measured(
    program: Run, arguments: tuple[str, ...], message: str
) -> None:
    program("bench", "ops", *QUICK)
    before = Path("t.json").read_bytes()
    table = () if "--size" in arguments else ("--size", "64x128")
    known = ("t.json",) if arguments[0] in ("--threads", "--statistic") else ("other.json",)
    threads = () if "--threads" in arguments else ("--threads", "1")
    outcome = program("bench", "ops", *table, *threads, "--table", *known, *arguments)
    assert outcome.code == 2
    assert message in outcome.stderr
    assert Path("t.json").read_bytes() == before
    assert not Path("other.json").exists()


@pytest.mark.parametrize("command", ["ops", "calibrate"])
def test_a_table_of_another_device_is_refused(program: Run, command: str) -> None:
    program("bench", "ops", *QUICK)
    data = json.loads(Path("t.json").read_text(encoding="utf-8"))
    data["device"]["id"] = "h200"
    Path("t.json").write_text(json.dumps(data), encoding="utf-8")
    arguments = QUICK if command == "ops" else ("--table", "t.json")
    outcome = program("bench", command, *arguments)
    assert outcome.code == 2
    assert "measured with device h200" in outcome.stderr


def test_a_truncated_table_says_what_to_do(program: Run) -> None:
    program("bench", "ops", *QUICK)
    text = Path("t.json").read_text(encoding="utf-8")
    Path("t.json").write_text(text[:-100], encoding="utf-8")
    for arguments in (("ops", *QUICK), ("calibrate", "--table", "t.json")):
        outcome = program("bench", *arguments)
        assert outcome.code == 2
        assert "was cut off or edited" in outcome.stderr


def test_the_original_table_is_read_but_not_added_to(program: Run) -> None:
    outcome = program("bench", "ops", "--table", str(ORIGINAL), "--missing-only")
    assert outcome.code == 2
    assert "none that fasterseg-bench ops wrote" in outcome.stderr


def test_a_calibration_needs_every_row(program: Run) -> None:
    program("bench", "ops", *QUICK, "--limit-minutes", "0.0001")
    outcome = program("bench", "calibrate", "--table", "t.json")
    assert outcome.code == 2
    assert "--missing-only" in outcome.stderr


def test_a_table_of_single_networks_is_not_calibrated(program: Run) -> None:
    arguments = ("--size", "64x128", "--model", "tiny.json", "--table", "t.json")
    program("bench", "ops", *arguments)
    outcome = program("bench", "calibrate", "--table", "t.json")
    assert outcome.code == 2
    assert "none were drawn" in outcome.stderr


def test_a_calibration_prints_all_baselines_and_ends_by_its_gate(
    program: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    program("bench", "ops", *QUICK)
    outcome = program("bench", "calibrate", "--table", "t.json")
    for name in ("rows inside, p50", "rows alone, cpu_min", "multiply-adds", "best constant"):
        assert name in outcome.stdout
    assert "second measurement" in outcome.stdout
    assert "NO   held-out networks >= 64" in outcome.stdout
    file = TableFile.load(Path("t.json"))
    assert file.report is not None
    assert (outcome.code == 6) == (file.report["refusal"] is not None)
    assert (file.calibration is None) == (outcome.code == 6)


def test_a_refused_fit_ends_with_the_performance_code(
    program: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibration, "LARGEST_ERROR", -1.0)
    program("bench", "ops", *QUICK)
    outcome = program("bench", "calibrate", "--table", "t.json")
    assert outcome.code == 6
    assert "the fit is not kept" in outcome.stderr


def test_another_statistic_is_judged_without_measuring_and_on_any_machine(
    program: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    program("bench", "ops", *QUICK)
    incomplete = program("bench", "calibrate", "--table", "t.json", "--statistic", "min")
    assert incomplete.code == 2
    assert "are not measured 2 times" in incomplete.stderr
    program("bench", "calibrate", "--table", "t.json")
    data = json.loads(Path("t.json").read_text(encoding="utf-8"))
    data["device"]["id"] = "h200"
    Path("t.json").write_text(json.dumps(data), encoding="utf-8")
    monkeypatch.setattr(calibration, "LARGEST_ERROR", 9.0)
    before = TableFile.load(Path("t.json"))
    outcome = program("bench", "calibrate", "--table", "t.json", "--statistic", "cpu_min")
    assert outcome.code == 0, outcome.stderr
    assert "t.json prices by cpu_min (before: p50)" in outcome.stdout
    assert "rows alone, cpu_min" in outcome.stdout
    after = TableFile.load(Path("t.json"))
    assert after.statistic == "cpu_min"
    assert (after.rows, after.nets, after.runs) == (before.rows, before.nets, before.runs)
    unknown = program("bench", "calibrate", "--table", "t.json", "--statistic", "mean")
    assert unknown.code == 2
    assert "cpu_p50" in unknown.stderr


def test_a_statistic_that_predicts_worse_than_allowed_leaves_the_table_alone(
    program: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    program("bench", "ops", *QUICK)
    program("bench", "calibrate", "--table", "t.json")
    before = Path("t.json").read_bytes()
    monkeypatch.setattr(calibration, "LARGEST_ERROR", -1.0)
    outcome = program("bench", "calibrate", "--table", "t.json", "--statistic", "cpu_min")
    assert outcome.code == 6
    assert "t.json still prices by p50" in outcome.stderr
    assert Path("t.json").read_bytes() == before


def test_a_report_shows_what_is_not_known_as_a_dash() -> None:
    numbers = {"mean": 0.031, "p90": 0.055, "within_10": 0.97, "tau": None}
    predictor = {"granularity": "inside", "statistic": "p50", "raw": numbers, "calibrated": numbers}
    lines = report_lines(
        {
            "held_out_nets": 64,
            "seed": 0,
            "fastest_ms": 10.0,
            "slowest_ms": 31.0,
            "range": 3.1,
            "statistic": "p50",
            "calibration_nets": 32,
            "predictors": [predictor],
            "macs": numbers,
            "constant": numbers,
            "repeat": numbers,
            "granularity": "inside",
            "goals": {"mean error <= 8%": True},
        }
    )
    assert lines[0].startswith("64 held-out networks (seed 0), 10.00 to 31.00 ms (3.1x, p50)")
    assert " ".join(lines[3].split()) == "rows inside, p50 3.1 % 5.5 % 3.1 % 5.5 % 97.0 % -"
    assert lines[-1] == "yes  mean error <= 8%"


@pytest.mark.onnx
def test_a_kill_costs_one_row_at_most(tmp_path: Path) -> None:
    (tmp_path / "tiny.json").write_text(json.dumps(GENOTYPE.to_json()), encoding="utf-8")
    table = tmp_path / "t.json"
    options = ["--size", "64x64", "--model", "tiny.json", "--table", "t.json", "--threads", "1"]
    command = [sys.executable, "-m", "fasterseg", "bench", "ops", *options]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment, stderr=subprocess.DEVNULL
    ) as process:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and not _rows(table):
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    before = TableFile.load(table).rows
    assert before
    subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True)
    after = TableFile.load(table)
    assert {key: after.rows[key] for key in before} == before
    assert after.table().price(plan(GENOTYPE, Size(64, 64))).ms > 0


def _rows(path: Path) -> int:
    return len(TableFile.load(path).rows) if path.exists() else 0
