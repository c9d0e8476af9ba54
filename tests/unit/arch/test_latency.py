"""Latency tables: the original's prices, what is refused, and what messages say."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from fasterseg.arch.genotype import Branch
from fasterseg.arch.latency import Calibration, LatencyTable
from fasterseg.arch.operators import OpSpec, parse_key
from fasterseg.arch.plan import Plan, plan
from fasterseg.errors import ConfigError, MissingLatencyError, UsageError
from fasterseg.types import Size
from tests.shared import ROOT, shared, zoo_genotype

TABLE = ROOT / "benchmarks/tables/gtx1080ti-original/tensorrt5.1-fp32-1024x2048.json"
FULL = Size(1024, 2048)

STUDENT_AT_8 = Branch(
    ops=tuple("conv_2x_downup" if cell in (2, 3, 6, 8) else "conv_2x" for cell in range(9)),
    strides=(8,) * 9,
    widths=(4, 4, 4, 4, 4, 4, 4, 12),
)
"""What the original derives for last = 0 from the released student's logits."""


@pytest.fixture(scope="module")
def table() -> LatencyTable:
    return LatencyTable.load(TABLE)


def with_historical_alias(table: LatencyTable) -> LatencyTable:
    """The original looks up the price of conv_2x where it runs conv_2x_downup."""
    plain = {}
    for key in table.rows:
        spec = parse_key(key)
        if spec.op == "conv_2x_downup":
            plain[key] = table[replace(spec, op="conv_2x")]
    assert len(plain) == 125
    return table.with_rows(plain)


def released(name: str, size: Size = FULL) -> Plan:
    return plan(zoo_genotype(f"fasterseg-{name}"), size)


def price(table: LatencyTable, network: Plan) -> float:
    return table.price(network, allow_upsample_mismatch=True).ms


@pytest.mark.parametrize(
    ("name", "ms", "with_alias_ms"),
    [
        ("student", 5.701835681642834, 6.4139770511337275),
        ("teacher", 17.943000794864652, 25.225902916112148),
    ],
)
def test_released_networks_have_the_prices_of_the_original_table(
    table: LatencyTable, name: str, ms: float, with_alias_ms: float
) -> None:
    network = released(name)
    assert price(table, network) == pytest.approx(ms, abs=1e-12)
    aliased = with_historical_alias(table)
    assert price(aliased, network) == pytest.approx(with_alias_ms, abs=1e-12)


def test_the_students_other_pair_of_branches_has_its_recorded_price(table: LatencyTable) -> None:
    released_student = zoo_genotype("fasterseg-student")
    genotype = replace(released_student, branches=(released_student.branches[0], STUDENT_AT_8))
    recorded = 6.260467391822158
    aliased = with_historical_alias(table)
    assert price(aliased, plan(genotype, FULL)) == pytest.approx(recorded, abs=1e-12)
    # As the original counts: with training heads and the FFM's unused attention.
    assert plan(genotype, FULL, aux_heads=True).parameters + 2 * 128**2 == 3_323_033


@pytest.mark.parametrize("name", ["student", "teacher"])
def test_every_pair_of_recorded_branches_is_priced_as_recorded(
    table: LatencyTable, name: str
) -> None:
    path = shared(f"reference/fasterseg-{name}.json")
    lasts: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))["all_three_lasts"]
    branches = {
        last: Branch(
            tuple(found["ops"]),
            tuple({0: 8, 1: 16, 2: 32}[scale] for scale in found["path"]),  # type: ignore[misc]
            tuple(found["widths_twelfths"]),
        )
        for last, found in lasts.items()
    }
    recorded = {
        "student": {"21": 6.4139770511337275, "20": 6.260467391822158},
        "teacher": {"21": 25.225902916112148, "20": 25.1323},
    }[name]
    aliased = with_historical_alias(table)
    for pair, ms in recorded.items():
        genotype = replace(
            zoo_genotype(f"fasterseg-{name}"), branches=tuple(branches[last] for last in pair)
        )
        tolerance = 1e-4 if ms == 25.1323 else 1e-10  # recorded to four digits only
        assert price(aliased, plan(genotype, FULL)) == pytest.approx(ms, abs=tolerance)


def test_what_the_original_left_out_is_counted(table: LatencyTable) -> None:
    network = released("student")
    found = table.price(network, allow_upsample_mismatch=True)
    assert found.left_out == {"resize": 3, "input": 1, "output": 1}
    assert sum(node.spec.op not in table.unpriced for node in network.nodes) == 27


def test_another_resampling_is_refused_unless_allowed(table: LatencyTable) -> None:
    with pytest.raises(UsageError, match=r"nearest .* bilinear .*allow_upsample_mismatch"):
        table.price(released("student"))
    bilinear = replace(table, upsample="bilinear")
    assert bilinear.price(released("student")).ms == price(table, released("student"))


def test_another_size_is_refused(table: LatencyTable) -> None:
    with pytest.raises(UsageError, match=r"measured for 1024x2048, .* 512x1024"):
        table.price(released("student", Size(512, 1024)), allow_upsample_mismatch=True)


def without(table: LatencyTable, *keys: str) -> LatencyTable:
    return replace(table, rows={key: ms for key, ms in table.rows.items() if key not in keys})


def test_a_missing_row_names_the_command_that_measures_it(table: LatencyTable) -> None:
    keys = ["conv_2x/64x128x256/32/s1", "ffm/128x128x256/128/s1"]
    lacking = without(table, *keys)
    with pytest.raises(MissingLatencyError) as raised:
        lacking.price(released("student"), allow_upsample_mismatch=True)
    message = str(raised.value)
    assert all(key in message for key in keys)
    assert "2 of 29 operators" in message
    assert f"fasterseg-bench ops --table {TABLE} --missing-only" in message
    with pytest.raises(MissingLatencyError, match="--missing-only"):
        lacking[parse_key(keys[0])]


def test_missing_lists_operators_without_a_row_but_no_unpriced_kinds(table: LatencyTable) -> None:
    specs = [node.spec for node in released("student").nodes]
    assert table.missing(specs) == []
    key = "head/128x128x256/19/s1"
    assert without(table, key).missing(specs) == [parse_key(key)]
    priced = replace(table, unpriced=frozenset())
    assert [spec.op for spec in priced.missing(specs)] == ["input", "output"]


def test_a_shared_cell_is_paid_once(table: LatencyTable) -> None:
    student = zoo_genotype("fasterseg-student")
    key = "conv_2x/64x128x256/32/s1"  # cell 0, in both branches
    dearer = table.with_rows({key: table.rows[key] + 1.0})
    network = plan(student, FULL)
    assert price(dearer, network) - price(table, network) == pytest.approx(1.0)


def test_calibration_corrects_the_sum(table: LatencyTable) -> None:
    network = released("student")
    fitted = replace(table, calibration=Calibration(scale=0.5, per_op_ms=0.01, offset_ms=2.0))
    assert price(fitted, network) == pytest.approx(0.5 * price(table, network) + 0.27 + 2.0)


def test_other_rows_leave_the_table_as_it_was(table: LatencyTable) -> None:
    key = next(iter(table.rows))
    before = table.rows[key]
    assert table.with_rows({key: 9.0})[parse_key(key)] == 9.0
    assert table[parse_key(key)] == before


@pytest.mark.parametrize("calibration", [None, Calibration(0.9, 0.001, -0.1)])
def test_a_written_table_loads_to_the_same(
    table: LatencyTable, tmp_path: Path, calibration: Calibration | None
) -> None:
    path = tmp_path / "table.json"
    written = replace(table, calibration=calibration, path=str(path))
    path.write_text(json.dumps(written.to_json()), encoding="utf-8")
    assert LatencyTable.load(path) == written


def test_the_committed_table_is_what_a_table_writes_and_its_notice(table: LatencyTable) -> None:
    data = json.loads(TABLE.read_text(encoding="utf-8"))
    notice = data.pop("notice")
    assert "MIT License" in notice
    assert "Copyright (c) 2019 Wuyang" in notice
    assert data == table.to_json()
    assert len(table.rows) == 667
    assert (table.statistic, table.upsample, table.precision) == ("mean", "nearest", "fp32")
    assert table.unpriced == {"resize", "input", "output"}


def write_table(path: Path, **changes: Any) -> Path:
    data = json.loads(TABLE.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**data, **changes}), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema": 2}, "schema 1; measure one with: fasterseg-bench ops"),
        ({"rows": {"conv/3x4": {"mean_ms": 1.0}}}, "'conv/3x4' is not an operator key"),
        ({"rows": {"conv/8x8x8/8/s1": {"p50_ms": 1.0}}}, "mean_ms"),
        ({"rows": []}, "not a latency table"),
        ({"size": "wide"}, "'wide' is not HEIGHTxWIDTH"),
        ({"batch": float("inf")}, "not a latency table"),
        ({"device": {"id": "x"}}, "device: key 'name' is missing"),
        ({"calibration": {"scale": 1.0}}, "key 'per_op_ms' is missing"),
    ],
)
def test_a_file_that_is_no_table_says_what_is_wrong(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    path = write_table(tmp_path / "table.json", **changes)
    with pytest.raises(UsageError, match=message):
        LatencyTable.load(path)


def test_a_file_that_cannot_be_read_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read"):
        LatencyTable.load(tmp_path / "absent.json")
    broken = tmp_path / "broken.json"
    broken.write_text("{", encoding="utf-8")
    with pytest.raises(ConfigError, match="is not JSON"):
        LatencyTable.load(broken)


@pytest.fixture(scope="module")
def importer() -> ModuleType:
    path = ROOT / "benchmarks" / "import_original_table.py"
    spec = importlib.util.spec_from_file_location("import_original_table", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("original", "key"),
    [
        ("BasicResidual1x_H128_W256_Cin32_Cout64_stride2_dilation1", "conv/32x128x256/64/s2"),
        ("BasicResidual2x_H64_W128_Cin64_Cout96_stride1_dilation1", "conv_2x/64x64x128/96/s1"),
        (
            "BasicResidual_downup_1x_H128_W256_Cin32_Cout48_stride1_dilation1",
            "conv_downup/32x128x256/48/s1",
        ),
        (
            "BasicResidual_downup_2x_H128_W256_Cin32_Cout48_stride2_dilation1",
            "conv_2x_downup/32x128x256/48/s2",
        ),
        ("FactorizedReduce_H64_W128_Cin64_Cout128_stride2", "skip/64x64x128/128/s2"),
        ("ConvNorm_H1024_W2048_Cin3_Cout32_kernel3_stride2", "conv/3x1024x2048/32/s2"),
        ("ConvNorm_H32_W64_Cin256_Cout128_kernel1_stride1", "squeeze/256x32x64/128/s1"),
        ("ConvNorm_H64_W128_Cin192_Cout128_kernel3_stride1", "fuse/192x64x128/128/s1"),
        ("ff_H128_W256_C128", "ffm/128x128x256/128/s1"),
        ("head_H128_W256_Cin128_Cout19", "head/128x128x256/19/s1"),
    ],
)
def test_every_kind_of_original_key_has_its_operator(
    importer: ModuleType, original: str, key: str
) -> None:
    assert importer.spec_of(original).key() == key


def test_the_importer_refuses_unknown_keys_and_collisions(importer: ModuleType) -> None:
    with pytest.raises(ConfigError, match="'Pool_H1_W1' is not a key"):
        importer.spec_of("Pool_H1_W1")
    twice = {"ff_H8_W8_C128": 1.0, "ff_H08_W8_C128": 2.0}
    with pytest.raises(ConfigError, match="second row"):
        importer.convert(twice)


def test_the_committed_table_is_the_original_one_converted(
    importer: ModuleType, tmp_path: Path
) -> None:
    source = shared("reference/latency_lookup_table_1080ti.json")
    target = tmp_path / "new" / "table.json"
    importer.main([str(source), str(target)])
    assert target.read_bytes() == TABLE.read_bytes()
    original = json.loads(source.read_text(encoding="utf-8"))["table"]
    table = LatencyTable.load(target)
    assert sorted(table.rows.values()) == sorted(original.values())
    assert table[OpSpec("conv", 3, 32, 2, 1024, 2048)] == 0.33638016848034674


def test_a_table_is_refused_for_what_it_was_not_measured_with(table: LatencyTable) -> None:
    ours = replace(table, conditions={"threads": None, "tail": "graph"})
    own = {"backend": "tensorrt 5.1", "precision": "fp32", "size": FULL, "batch": 1}
    ours.check("gtx1080ti-original", **own, threads=None, tail="graph")
    for name, value in [
        ("precision", "fp16"),
        ("size", Size(512, 1024)),
        ("backend", "onnxruntime"),
        ("threads", 1),
        ("tail", "native-avx2"),
    ]:
        with pytest.raises(UsageError, match=f"with {name} .* asked for {name} {value}"):
            ours.check("gtx1080ti-original", **{**own, name: value})
    with pytest.raises(UsageError, match="device gtx1080ti-original, and is asked for device h200"):
        ours.check("h200", **own)


def test_conditions_are_kept_in_the_file(table: LatencyTable, tmp_path: Path) -> None:
    path = tmp_path / "table.json"
    written = replace(table, conditions={"threads": 2}, path=str(path))
    path.write_text(json.dumps(written.to_json()), encoding="utf-8")
    assert LatencyTable.load(path).conditions == {"threads": 2}


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-0.1"])
def test_a_row_that_no_measurement_gives_is_refused(tmp_path: Path, value: str) -> None:
    key = "conv/8x8x8/8/s1"
    path = write_table(tmp_path / "table.json", rows={key: {"mean_ms": 12345.0}})
    path.write_text(path.read_text(encoding="utf-8").replace("12345.0", value), encoding="utf-8")
    with pytest.raises(ConfigError, match=f"{key} is .* measure it again"):
        LatencyTable.load(path)


def test_a_table_that_was_cut_off_says_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "table.json"
    path.write_bytes(TABLE.read_bytes()[:5000])
    with pytest.raises(ConfigError, match=r"cut off .* fasterseg-bench ops --table"):
        LatencyTable.load(path)
