from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fasterseg.bench import engines
from fasterseg.bench.cells import Cell, Sharing
from fasterseg.bench.engines import Frames
from fasterseg.bench.peers import Peer
from fasterseg.bench.records import BenchRecord
from fasterseg.bench.streams import Share
from fasterseg.bench.suite import Access, Candidate, Suite
from fasterseg.bench.timing import FULL, ROW, TimingProtocol
from fasterseg.cli import bench, bench_text, main
from fasterseg.cli.bench_options import DEFAULT_SIZES
from fasterseg.cli.options import exit_code_of, note
from fasterseg.errors import UsageError
from fasterseg.runtime.base import Engine
from fasterseg.types import DeviceInfo, LatencyStats, Size
from tests.unit.bench.test_engines import BoundFake, FakeEngine, batches, film_of

FAST = TimingProtocol("row", warmup_runs=1, min_runs=3)

CELL = Cell(
    engine="onnxruntime",
    precision="fp32",
    device="cpu",
    size=Size(512, 1024),
    batch=1,
    tail="graph",
    threads=None,
    host_to_labels=LatencyStats.of([80.0]),
    model=LatencyStats.of([71.5]),
    model_clock="host",
)
RECORD = BenchRecord(
    device=DeviceInfo("box-2c", "Box", "x86_64", None, None, "Linux", {"onnxruntime": "1"}),
    protocol=FULL,
    commit="abc",
    created="2026-11-22T10:11:12+00:00",
    model="tiny",
    trained=True,
    cells=(CELL,),
)


class Bench:
    """The program with fake engines instead of real ones."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.opened: list[tuple[str, str, str, Size]] = []
        self.suites: list[Suite] = []
        self.models: list[str] = []
        monkeypatch.setattr(bench, "access_to", self._access)
        monkeypatch.setattr(bench, "protocol_named", lambda name: FAST)
        monkeypatch.setattr(engines, "render_frames", self._render)

    def __call__(self, *arguments: str) -> int:
        return exit_code_of(bench.app, list(arguments))

    def _access(self, model: str, suite: Suite, film: Any) -> Access:
        self.models.append(model)
        self.suites.append(suite)
        on_note = bench.once(note)

        def open_one(asked: Candidate) -> Engine:
            self.opened.append((asked.engine, asked.precision, asked.device, asked.size))
            on_note("a note of the opener")
            engine = asked.engine
            made = BoundFake() if engine == "onnxruntime" else FakeEngine(backend=engine)
            made.spec = replace(made.spec, size=Size(16, 96), batch=asked.engine_batch)
            return made

        return Access(open_one, film=film, sharer=bench.share_engine)

    @staticmethod
    def _render(size: Size, batch: int) -> list[Frames]:
        return batches(Size(16, 96), batch)


@pytest.fixture(autouse=True)
def onnx_runtime_is_the_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fasterseg.bench.engines.reference_backend", lambda: "onnxruntime")


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(monkeypatch)


def test_program_alone_measures_the_default_sizes(program: Bench) -> None:
    assert program() == 0
    assert [(engine, str(size)) for engine, _, _, size in program.opened] == [
        ("onnxruntime", "512x1024"),
        ("onnxruntime", "768x1536"),
        ("onnxruntime", "1024x2048"),
    ]
    assert program.models == ["fasterseg-camvid"]


def test_an_engine_file_is_measured_at_its_own_size(program: Bench, tmp_path: Path) -> None:
    def exported(size: str) -> str:
        path = str(tmp_path / f"{size}.onnx")
        assert (
            exit_code_of(main.app, ["export", "fasterseg-student", "--size", size, "-o", path]) == 0
        )
        return path

    small, large = exported("64x96"), exported("96x128")
    assert program("--engine", small) == 0
    assert program("--engine", small, "--engine", large) == 0
    assert program("--engine", small, "--engine", "onnxruntime") == 0
    assert [tuple(map(str, suite.sizes)) for suite in program.suites] == [
        ("64x96",),
        DEFAULT_SIZES,
        DEFAULT_SIZES,
    ]


def test_options_reach_the_suite(program: Bench) -> None:
    arguments = "--engine onnxruntime --engine pytest --size 64x96 --batch 2,1 --threads 1"
    more = "--precision fp32,int8 --device cpu --cpu-time --model student --per-layer"
    assert program(*arguments.split(), *more.split(), "--streams", "1, 2") == 0
    (suite,) = program.suites
    assert suite == Suite(
        engines=("onnxruntime", "pytest"),
        sizes=(Size(64, 96),),
        batches=(2, 1),
        streams=(1, 2),
        precisions=("fp32", "int8"),
        device="cpu",
        threads=1,
        protocol=FAST,
        cpu_time=True,
        per_layer=True,
    )
    assert program.models == ["student"]


def test_json_goes_to_stdout_and_nothing_else_does(
    program: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    assert program("--size", "64x96", "--json", "-") == 0
    out, err = capsys.readouterr()
    record = BenchRecord.from_json(out, "stdout")
    assert [cell.engine for cell in record.cells] == ["onnxruntime"]
    assert json.loads(out)["cells"][0]["fps_host_to_labels"] > 0
    assert "host_to_labels p50" in err
    assert "a note of the opener" in err


def test_table_goes_to_stdout_and_notes_do_not(
    program: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    assert program("--size", "64x96", "--size", "32x96") == 0
    out, err = capsys.readouterr()
    assert "host_to_labels p50" in out
    assert "note" not in out
    assert err.count("a note of the opener") == 1


def test_save_appends_below_the_current_folder(
    program: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        assert program("--size", "64x96", "--save") == 0
    saved = sorted(tmp_path.glob("benchmarks/results/*/*.json"))
    assert len(saved) == 2
    assert BenchRecord.load(saved[0]).model == "tiny"


def test_json_file_is_written(program: Bench, tmp_path: Path) -> None:
    assert program("--size", "64x96", "--json", str(tmp_path / "r.json")) == 0
    assert BenchRecord.load(tmp_path / "r.json").protocol == FAST


@pytest.mark.parametrize("arguments", [("--size", "big"), ("--batch", "0"), ("--nonsense",)])
def test_wrong_usage_exits_with_2(program: Bench, arguments: tuple[str, ...]) -> None:
    assert program(*arguments) == 2
    assert program.opened == []


def test_unknown_protocol_lists_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code_of(bench.app, ["--protocol", "fast"]) == 2
    assert "full, quick, row" in capsys.readouterr().err


def test_protocol_is_found_by_name() -> None:
    assert bench.protocol_named("row") is ROW


def test_compare_prints_the_ratio(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    faster = replace(RECORD, cells=(replace(CELL, host_to_labels=LatencyStats.of([40.0])),))
    for name, record in (("a.json", RECORD), ("b.json", faster)):
        (tmp_path / name).write_text(record.to_json())
    paths = [str(tmp_path / "a.json"), str(tmp_path / "b.json")]
    assert exit_code_of(bench.app, ["compare", *paths]) == 0
    *_, head, row = capsys.readouterr().out.splitlines()
    assert head.split()[-2:] == ["B/A", "(spread)"]
    assert row.split()[:4] == ["onnxruntime", "fp32", "512x1024", "1"]
    assert row.split()[4:8] == ["71.50", "71.50", "1.000", "(1.000-1.000)"]
    assert row.split()[8:] == ["80.00", "40.00", "0.500", "(0.500-0.500)"]


def test_compare_of_two_devices_exits_with_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = replace(RECORD, device=replace(RECORD.device, id="h200"))
    for name, record in (("a.json", RECORD), ("b.json", other)):
        (tmp_path / name).write_text(record.to_json())
    paths = [str(tmp_path / "a.json"), str(tmp_path / "b.json")]
    assert exit_code_of(bench.app, ["compare", *paths]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "h200" in err


def test_table_shows_both_scopes_and_what_they_hold() -> None:
    lines = bench_text.table(RECORD)
    text = "\n".join(lines)
    assert lines[0] == "Box (box-2c), tiny"
    assert "protocol full: 2 s warm-up, then at least 200 runs and 3 s" in text
    head, row = lines[3:5]
    for name, value in (
        ("model p50", "71.50"),
        ("host_to_labels p50", "80.00"),
        ("fps", "12.50"),
        ("agreement", "-"),
        ("threads", "default"),
    ):
        column = head.index(name)
        assert row[column:].split()[0] == value
    assert "copies in" in lines[-1]
    assert "no copies" in lines[-1]
    assert "cpu p50" not in text


def test_table_shows_a_dash_for_an_unmeasured_model() -> None:
    record = replace(RECORD, cells=(replace(CELL, model=None, model_clock=None),))
    head, row = bench_text.table(record)[3:5]
    assert row[head.index("model p50") :].split()[0] == "-"


def test_table_adds_cpu_time_where_it_was_measured() -> None:
    measured = replace(CELL, host_to_labels_cpu=LatencyStats.of([155.0]))
    head, row = bench_text.table(replace(RECORD, cells=(measured,)))[3:5]
    assert row[head.index("cpu p50") :] == "155.0"


def test_agreement_is_never_rounded_up() -> None:
    record = replace(RECORD, cells=(replace(CELL, label_agreement=0.9999999),))
    assert "99.999%" in bench_text.table(record)[4]
    record = replace(RECORD, cells=(replace(CELL, label_agreement=1.0),))
    assert "100.000%" in bench_text.table(record)[4]


def test_table_says_when_weights_are_untrained() -> None:
    assert "untrained" in bench_text.table(replace(RECORD, trained=False))[0]


def test_warnings_are_printed_on_stderr(program: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    bench.show(replace(RECORD, cells=(replace(CELL, warnings=("unstable: x",)),)), None)
    out, err = capsys.readouterr()
    assert "unstable" not in out
    assert "warning: onnxruntime fp32 512x1024: unstable: x" in err


def test_opener_asks_the_runtime_for_one_model(monkeypatch: pytest.MonkeyPatch) -> None:
    from fasterseg.runtime import select
    from fasterseg.runtime.base import PIXEL_AGREEMENT

    asked: list[Any] = []
    monkeypatch.setattr(
        select, "open_engine", lambda request, size, on_note: asked.append((request, size))
    )
    suite = Suite(engines=("torch",), sizes=(Size(64, 96),), threads=2)
    access = bench.access_to("student", suite, None)
    access.opener(Candidate("torch", "fp32", "cpu", Size(64, 96), batch=3))
    expected = select.EngineRequest(
        model="student",
        engine="torch",
        precision="fp32",
        device="cpu",
        size=Size(64, 96),
        batch=3,
        threads=2,
    )
    assert asked == [(expected, Size(64, 96))]
    access.opener(Candidate("torch", "fp32", "cpu", Size(64, 96), streams=4, share=Share(4)))
    assert asked[-1] == (replace(expected, batch=4), Size(64, 96))
    assert access.limits is PIXEL_AGREEMENT
    assert access.check is not None
    with pytest.raises(UsageError, match="int8"):
        access.check(Candidate("torch", "int8", "cpu", Size(64, 96)))


@pytest.mark.onnx
def test_graphs_are_those_of_the_model_where_onnx_runtime_runs_it(tmp_path: Path) -> None:
    graphs = bench.graphs_of("fasterseg-camvid")
    wanted = Candidate("onnxruntime", "auto", "cpu", Size(64, 96))
    logits = graphs(wanted, "fp32", "logits8")
    assert logits is not None
    assert b"logits8" in logits
    assert graphs(replace(wanted, engine="torch"), "fp32", "labels") is None
    file = tmp_path / "own.onnx"
    file.write_bytes(b"content")
    own = replace(wanted, engine=str(file))
    assert graphs(own, "fp32", "labels") == b"content"
    assert graphs(own, "fp32", "logits8") is None


@pytest.mark.parametrize("text", ["0", "1,", "a", "1,-2", "1.5", ""])
def test_lists_of_numbers_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--batch"):
        bench.numbers("--batch", text)


@pytest.mark.parametrize(
    ("options", "share"),
    [
        ("", None),
        ("--share", Share(8, 5.0)),
        ("--share --max-batch 4 --max-delay-ms 0", Share(4, 0.0)),
    ],
)
def test_streams_share_an_engine_on_request(
    program: Bench, options: str, share: Share | None
) -> None:
    assert program("--size", "64x96", "--streams", "1,2", *options.split()) == 0
    (suite,) = program.suites
    assert suite.share == share
    # The reference has an engine of its own, the streams one in all or one each.
    assert len(program.opened) == (3 if share is None else 2)


def test_limits_of_batches_without_sharing_are_refused(
    program: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    assert program("--max-batch", "4") == 2
    assert "add it" in capsys.readouterr().err
    assert program("--share", "--max-delay-ms", "-1") == 2


def test_table_shows_how_an_engine_was_shared() -> None:
    sharing = Sharing(4, 2.5, 9, 0.75, LatencyStats.of([1.5]))
    slow = LatencyStats.of([90.0])
    shared = replace(
        CELL, streams=4, throughput_fps=50.0, by_stream=(CELL.host_to_labels, slow), sharing=sharing
    )
    own = replace(shared, sharing=None)
    lines = bench_text.table(replace(RECORD, cells=(CELL, own, shared)))
    assert lines[3].split("  ")[-1].strip() == "waited p99"
    assert lines[4].split()[-6:] == ["1", "-", "-", "-", "-", "-"]
    assert lines[5].split()[-6:] == ["4", "90.00", "-", "-", "-", "-"]
    assert lines[6].endswith("at most 4 in 2.5 ms  75%   1.500       1.500")
    assert any(line.startswith("streams:") for line in lines)
    assert "one engine" not in "".join(bench_text.table(RECORD))


def test_peers_are_files_with_names(program: Bench) -> None:
    arguments = ["--size", "64x96", "--interleave", "--peer", "absent.onnx:STDC1"]
    assert program(*arguments) == 4
    (suite,) = program.suites
    assert suite.peers == (Peer("STDC1", Path("absent.onnx")),)
    assert suite.interleave
    assert program.opened == []
    assert program("--peer", "net.pt") == 2


def records(tmp_path: Path, *host_ms: float) -> list[str]:
    """Files with a record each."""
    paths = []
    for number, ms in enumerate(host_ms):
        cell = replace(
            CELL, host_to_labels=LatencyStats.of([ms]), host_to_labels_cpu=LatencyStats.of([100.0])
        )
        path = tmp_path / f"{number}.json"
        path.write_text(replace(RECORD, cells=(cell,)).to_json())
        paths.append(str(path))
    return paths


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ([], 0),
        (["--max-regression", "30"], 0),
        (["--max-regression", "20"], 6),
        (["--max-regression", "0", "--by", "cpu"], 0),
        (["--max-regression", "0", "--by", "gpu"], 2),
        (["--max-regression", "-1"], 2),
    ],
)
def test_compare_fails_beyond_the_regression_allowed(
    tmp_path: Path, options: list[str], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = records(tmp_path, 80.0, 100.0)
    assert exit_code_of(bench.app, ["compare", *paths, *options]) == code
    out, err = capsys.readouterr()
    assert ("512x1024 takes +25.0%" in err) == (code == 6)
    assert ("cpu A" in out) == (code != 2)


def test_truncated_record_is_an_error_that_names_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = records(tmp_path, 80.0, 80.0)
    Path(second).write_text(Path(second).read_text()[:500])
    assert exit_code_of(bench.app, ["compare", first, second]) == 2
    assert "1.json is not JSON" in capsys.readouterr().err


def test_report_writes_one_page_and_no_other_over_it(tmp_path: Path) -> None:
    pytest.importorskip("jinja2")
    pytest.importorskip("matplotlib")
    paths = records(tmp_path, 80.0, 100.0)
    page = tmp_path / "report.html"
    assert exit_code_of(bench.app, ["report", *paths, "-o", str(page)]) == 0
    assert page.read_text().count("<h2>") == 2
    assert exit_code_of(bench.app, ["report", *paths, "-o", str(page)]) == 2
    assert exit_code_of(bench.app, ["report", paths[0], "-o", str(page), "--overwrite"]) == 0
    assert page.read_text().count("<h2>") == 1


def test_report_without_its_extra_names_the_install_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    monkeypatch.delitem(sys.modules, "fasterseg.bench.report", raising=False)
    paths = records(tmp_path, 80.0)
    assert exit_code_of(bench.app, ["report", *paths, "-o", str(tmp_path / "r.html")]) == 4
    assert "fasterseg[report]" in capsys.readouterr().err


def test_readme_tables_are_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    records(tmp_path, 80.0)
    file = tmp_path / "README.md"
    file.write_text("<!-- bench: 0.json -->\n<!-- /bench -->\n")
    assert exit_code_of(bench.app, ["report", "--readme", str(file)]) == 0
    assert "| onnxruntime fp32, CPU | 512x1024 |" in file.read_text()
    assert exit_code_of(bench.app, ["report", "a.json", "--readme", str(file)]) == 2
    assert exit_code_of(bench.app, ["report", "a.json"]) == 2


def test_ratios_of_an_interleaved_run_come_with_their_spread() -> None:
    ours = replace(CELL, rounds_ms={"host_to_labels": (1.0, 2.0, 4.0)})
    peer = replace(ours, peer="STDC1", rounds_ms={"host_to_labels": (2.0, 5.0, 8.0)})
    lines = bench_text.table(replace(RECORD, cells=(ours, peer)))
    (row,) = [line for line in lines if line.startswith("STDC1 (onnxruntime fp32)")]
    assert "2.000 (2.000 to 2.400)" in row
    assert row.split()[-1] == "-"


def test_wrong_engine_is_called_so_in_the_table() -> None:
    wrong = replace(CELL, label_agreement=0.5, verdict="wrong")
    assert "WRONG 50.000%" in bench_text.table(replace(RECORD, cells=(wrong,)))[4]


def test_end_to_end_comes_with_its_stages() -> None:
    lines = bench_text.table(replace(RECORD, cells=(replace(CELL, end_to_end=film_of("reader")),)))
    head, row = (line.split() for line in lines[-3:-1])
    assert head[-7:] == ["decode", "prepare", "engine", "finish", "write", "bound", "by"]
    assert row[-6:] == ["9.000", "1.000", "2.000", "1.000", "1.000", "reader"]


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from fasterseg.cli import bench\n"
        "from fasterseg.cli.options import exit_code_of\n"
        "assert exit_code_of(bench.app, ['--help']) == 0\n"
        "print([m for m in ('numpy', 'cv2', 'onnx', 'onnxruntime') if m in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert "--protocol" in done.stdout
