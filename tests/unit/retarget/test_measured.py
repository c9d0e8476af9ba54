from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fasterseg.arch.genotype import Genotype
from fasterseg.arch.plan import plan
from fasterseg.bench.begin import Request, begin
from fasterseg.bench.draw import draw
from fasterseg.bench.nominal import nominal_table
from fasterseg.bench.ops import Progress, measure_rows
from fasterseg.bench.tables import STATISTICS, TableFile
from fasterseg.bench.timing import TimingProtocol
from fasterseg.errors import ConfigError, UsageError
from fasterseg.retarget.measured import (
    Measured,
    Measurements,
    check_table,
    load_measured,
    measure,
    within_tolerance,
)
from tests.shared import zoo_genotype
from tests.unit.bench.table_fakes import SIZE, SPACE, Machine, Opened, ignore, new_table

NETS = draw(SPACE, SIZE, 3, calibration=0, held_out=6).held_out
FRAMES = np.zeros((1, *SIZE, 3), np.uint8)
FAST = TimingProtocol("net", warmup_runs=1, min_runs=3)


def due_ms(genotype: Genotype) -> float:
    return plan(genotype, SIZE).macs / 1e7


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> TableFile:
    file = new_table(tmp_path_factory.mktemp("rows") / "table.json")
    machine = Machine()
    measure_rows(file, SPACE.operators(SIZE), machine.open_graph, ignore, clocks=machine.clocks)
    return file


def measurements(file: TableFile, path: Path | None, opened: Opened, **more: Any) -> Measurements:
    clocks = opened.machine.clocks
    return Measurements(
        file, path, open_net=opened, frames=FRAMES, protocol=FAST, clocks=clocks, **more
    )


def test_networks_are_timed_twice_in_the_tables_backend_and_kept(
    rows: TableFile, tmp_path: Path
) -> None:
    path = tmp_path / "search" / "measured.json"
    opened = Opened(Machine(), due_ms)
    seen: list[Progress] = []
    found = measurements(rows, path, opened, on_progress=seen.append)(NETS)
    assert list(found) == [genotype.digest() for genotype in NETS]
    assert sorted(opened.digests) == sorted([*found, *found])
    assert opened.digests[:6] != opened.digests[6:]
    for genotype in NETS:
        one = found[genotype.digest()]
        assert len(one.times) == 2
        assert one.ms("p50") == pytest.approx(due_ms(genotype), abs=1e-3)
        assert one.ms("cpu_min") == pytest.approx(2 * due_ms(genotype), abs=1e-3)
        assert one.predicted_ms == rows.table().price(plan(genotype, SIZE)).ms
    assert [(p.done, p.left) for p in seen] == [(4, 8), (6, 6), (10, 2), (12, 0)]
    assert load_measured(path) == found
    stored = json.loads(path.read_text(encoding="utf-8"))[NETS[0].digest()]
    assert stored["genotype"] == NETS[0].to_json()
    assert set(stored["times"][0]) == {f"{statistic}_ms" for statistic in STATISTICS}


def test_a_disturbed_pass_does_not_count_beside_a_quiet_one() -> None:
    def passed(ms: float, slowdown: float) -> dict[str, float]:
        return {**{f"{statistic}_ms": ms for statistic in STATISTICS}, "slowdown": slowdown}

    quiet, also, loud, louder = (passed(10, 0.01), passed(12, 0.04), passed(20, 0.3), passed(30, 1))
    assert Measured(NETS[0], None, (quiet, loud, also), {}).ms("p50") == 11
    assert Measured(NETS[0], None, (louder, loud), {}).ms("p50") == 20


def test_what_is_there_is_not_measured_again(rows: TableFile, tmp_path: Path) -> None:
    path = tmp_path / "measured.json"
    first = measurements(rows, path, Opened(Machine(), due_ms))(NETS[:2])
    opened = Opened(Machine(), lambda _: 1e3)
    again = measurements(rows, path, opened)
    assert again(NETS[:2]) == first
    assert opened.digests == []
    further = again(NETS[1:3])
    assert set(opened.digests) == {NETS[2].digest()}
    assert further[NETS[1].digest()] == first[NETS[1].digest()]
    assert len(again(NETS[:1], passes=3)[NETS[0].digest()].times) == 3


def test_a_kill_loses_the_networks_of_one_group_at_most(rows: TableFile, tmp_path: Path) -> None:
    path = tmp_path / "measured.json"

    def dies(progress: Progress) -> None:
        if progress.done >= 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measurements(rows, path, Opened(Machine(), due_ms), on_progress=dies)(NETS)
    assert len(load_measured(path)) == 4
    rest = Opened(Machine(), due_ms)
    assert len(measurements(rows, path, rest)(NETS)) == 6
    assert len(rest.digests) == 8


def test_a_network_outside_the_table_is_measured_without_a_prediction(
    rows: TableFile, tmp_path: Path
) -> None:
    path = tmp_path / "measured.json"
    student = zoo_genotype("fasterseg-student")
    found = measurements(rows, path, Opened(Machine(), due_ms))([student])
    assert found[student.digest()].predicted_ms is None
    assert load_measured(path) == found


def test_networks_that_finish_elsewhere_are_refused(rows: TableFile) -> None:
    opened = Opened(Machine(), due_ms)
    opened.tail = "native-avx512"
    with pytest.raises(UsageError, match="native-avx512"):
        measurements(rows, None, opened)(NETS)


@pytest.mark.onnx
def test_by_default_networks_are_opened_with_the_tables_engine(tmp_path: Path) -> None:
    request = Request(SIZE, "onnxruntime", "fp32", "cpu", threads=1, path=tmp_path / "t.json")
    file = begin(request, request.detect(), SPACE)
    check_table(file, size=SIZE)
    [one] = measure(NETS[:1], file, protocol=FAST).values()
    assert 0 < one.times[0]["min_ms"] <= one.times[0]["p50_ms"]
    assert one.times[0] != one.times[1]


def test_a_nominal_table_gives_its_prices_and_runs_nothing(tmp_path: Path) -> None:
    file = nominal_table(SPACE, SIZE, tmp_path / "table.json")
    path = tmp_path / "measured.json"
    found = measure(NETS, file, path)
    for genotype in NETS:
        price = file.table().price(plan(genotype, SIZE)).ms
        assert {found[genotype.digest()].ms(statistic) for statistic in STATISTICS} == {price}
    before = path.read_bytes()
    path.unlink()
    measure(NETS[::-1], file, path)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"precision": "fp16"}, "precision fp32, not fp16"),
        ({"backend": "tensorrt"}, "backend onnxruntime, not tensorrt"),
        ({"conditions": {"device": "cpu", "threads": 4, "tail": "graph"}}, "threads 1, not 4"),
    ],
)
def test_measurements_under_other_conditions_are_refused(
    rows: TableFile, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    path = tmp_path / "measured.json"
    measurements(rows, path, Opened(Machine(), due_ms))(NETS[:1])
    with pytest.raises(UsageError, match=message):
        Measurements(replace(rows, **change), path)


def test_measurements_of_another_device_or_version_are_refused(
    rows: TableFile, tmp_path: Path
) -> None:
    path = tmp_path / "measured.json"
    measurements(rows, path, Opened(Machine(), due_ms))(NETS[:1])
    for device in (
        replace(rows.device, id="h200"),
        replace(rows.device, runtimes={"onnxruntime": "2.0"}),
    ):
        with pytest.raises(UsageError, match=r"do not compare\. Choose another folder"):
            Measurements(replace(rows, device=device), path)


@pytest.mark.parametrize("damage", ["cut", "list", "edited", "times"])
def test_a_damaged_file_is_refused(rows: TableFile, tmp_path: Path, damage: str) -> None:
    path = tmp_path / "measured.json"
    measurements(rows, path, Opened(Machine(), due_ms))(NETS[:1])
    text = path.read_text(encoding="utf-8")
    changed = {
        "cut": text[:-20],
        "list": "[]",
        "edited": text.replace('"stem_width": 4', '"stem_width": 5'),
        "times": text.replace('"min_ms"', '"best_ms"'),
    }
    path.write_text(changed[damage], encoding="utf-8")
    with pytest.raises(ConfigError, match=r"measured\.json"):
        load_measured(path)


def test_only_networks_of_equal_measured_latency_are_compared(rows: TableFile) -> None:
    times = dict(zip([g.digest() for g in NETS], [9.7, 9.81, 10.0, 10.19, 10.3, 5], strict=True))
    opened = Opened(Machine(), lambda genotype: times[genotype.digest()])
    found = measurements(rows, None, opened)(NETS)
    kept = within_tolerance(found.values(), 10.0, "p50")
    assert {one.genotype for one in kept} == set(NETS[1:4])


def test_a_table_of_another_machine_is_refused(
    rows: TableFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match="measured with device box-2c"):
        check_table(rows, size=SIZE)
    here = replace(rows.device, runtimes={"onnxruntime": "0.9"})
    monkeypatch.setattr("fasterseg.bench.device.detect", lambda *_: here)
    with pytest.raises(UsageError, match=r"onnxruntime 1\.0, installed is 0\.9"):
        check_table(rows, size=SIZE)
    monkeypatch.setattr("fasterseg.bench.device.detect", lambda *_: rows.device)
    check_table(rows, size=SIZE, precision="fp32", threads=1)
    for wanted in ({"precision": "fp16"}, {"threads": 2}, {"batch": 4}):
        with pytest.raises(UsageError, match="is asked for"):
            check_table(rows, **wanted)
    check_table(nominal_table(SPACE, SIZE, tmp_path / "t.json"), size=SIZE)
