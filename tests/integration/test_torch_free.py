"""What a board without torch needs works without torch, TensorRT and every other extra.

Each test is a process whose import system refuses the packages named, whether they are installed
or not, so the result is the same on a developer's machine and on a bare one.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.architecture_rules import LAYERS, imports, load

ROOT = Path(__file__).resolve().parents[2]
TABLES = ROOT / "benchmarks" / "tables" / "gtx1080ti-original"
STUDENT = ROOT / "fasterseg" / "zoo" / "fasterseg-student.json"

EXTRAS = (
    "torch", "tensorboard", "tensorrt", "tensorrt_rtx", "cuda", "pycuda", "openvino", "polygraphy",
    "matplotlib", "jinja2", "starlette", "uvicorn", "prometheus_client",
)  # fmt: skip
HEAVY = ("numpy", "cv2", "av", "onnx", "onnxruntime", "safetensors")

BLOCKER = """
import sys

class Blocker:
    blocked = frozenset({blocked!r})

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in self.blocked:
            raise ModuleNotFoundError(f"{{name}} is blocked by this test", name=name)
        return None

sys.meta_path.insert(0, Blocker())
"""

IMPORT_ALL = """
from importlib import import_module
for name in {names!r}:
    import_module(name)
print("imported")
"""

WALK_HELP = """
import contextlib, io, json, sys
import typer.main
from fasterseg.cli.main import app

def commands(command, path):
    yield path
    for name, inner in getattr(command, "commands", {}).items():
        yield from commands(inner, [*path, name])

shown = {}
root = typer.main.get_command(app)
for path in list(commands(root, [])):
    text = io.StringIO()
    with contextlib.redirect_stdout(text):
        code = root.main(args=[*path, "--help"], prog_name="fasterseg", standalone_mode=False)
    shown[" ".join(path)] = [code or 0, text.getvalue()]
print(json.dumps({"shown": shown, "modules": sorted(sys.modules)}))
"""

ENTRY_HELP = """
import contextlib, io, json, sys
from importlib import import_module
sys.argv = [{program!r}, "--help"]
text = io.StringIO()
code = None
with contextlib.redirect_stdout(text):
    try:
        import_module({module!r}).run()
    except SystemExit as stop:
        code = stop.code
print(json.dumps({{"code": code, "text": text.getvalue(), "modules": sorted(sys.modules)}}))
"""

PRICE = """
import json
from pathlib import Path
from fasterseg.arch.genotype import Genotype
from fasterseg.arch.latency import LatencyTable
from fasterseg.arch.plan import plan
table = LatencyTable.load(Path({table!r}))
genotype = Genotype.from_json(json.loads(Path({genotype!r}).read_text()))
print(table.price(plan(genotype, table.size), allow_upsample_mismatch=True).ms)
"""

SEGMENT = """
import numpy as np
from fasterseg.runtime.select import EngineRequest, open_engine
from fasterseg.stream.segmenter import Segmenter
from fasterseg.types import Size
notes = []
request = EngineRequest(engine="onnxruntime", device="cpu", size=Size(64, 96), threads=1)
image = np.random.default_rng(0).integers(0, 256, (90, 140, 3), dtype=np.uint8)
with Segmenter(lambda source: open_engine(request, source, notes.append)) as segmenter:
    result = segmenter(image)
assert notes, "building an engine is announced"
print(result.mask.shape, result.mask.dtype, bool((result.mask < len(result.labels)).all()))
"""


def run(code: str, blocked: tuple[str, ...] = EXTRAS) -> str:
    """Run Python code with packages refused; its standard output."""
    return run_command([sys.executable, "-c", BLOCKER.format(blocked=blocked) + code])


def run_command(command: list[str]) -> str:
    """Run a command from the source tree; its standard output. Fails the test when it fails."""
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "100"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def modules_of(units: set[str]) -> list[str]:
    """Modules of some units, but for those that exist to wrap an extra (registries name them)."""
    tree = load(ROOT / "fasterseg")
    return [
        name
        for name, module in tree.items()
        if module.unit in units
        and not any(
            found.top_level and found.target.partition(".")[0] in EXTRAS
            for found in imports(module, tree)
        )
    ]


def test_the_blocker_refuses_what_is_installed() -> None:
    code = "try:\n    import json.decoder\nexcept ModuleNotFoundError as error:\n    print(error)\n"
    assert "json is blocked" in run(code, blocked=("json",))


def test_layers_up_to_stream_and_bench_import_without_extras() -> None:
    names = modules_of({unit for layer in LAYERS[:5] for unit in layer})
    assert {"fasterseg.arch.plan", "fasterseg.runtime.base"} <= set(names)
    assert run(IMPORT_ALL.format(names=names)) == "imported\n"


def test_programs_import_without_extras() -> None:
    names = modules_of({"cli"})
    assert run(IMPORT_ALL.format(names=names)) == "imported\n"


def test_describing_a_network_needs_the_standard_library_only() -> None:
    names = modules_of({"fasterseg", "errors", "registry", "config", "cache", "types", "arch"})
    assert run(IMPORT_ALL.format(names=names), blocked=(*EXTRAS, *HEAVY)) == "imported\n"


def test_student_is_priced_with_the_standard_library_only() -> None:
    tables = sorted(TABLES.glob("*.json"))
    assert len(tables) == 1, f"one table of the original is expected under {TABLES}"
    printed = run(PRICE.format(table=str(tables[0]), genotype=str(STUDENT)), (*EXTRAS, *HEAVY))
    assert float(printed) == pytest.approx(5.701835681642834, abs=1e-9)


@pytest.mark.onnx
def test_frame_is_segmented_by_an_engine_emitted_and_built_without_extras(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FASTERSEG_CACHE", str(tmp_path))
    assert run(SEGMENT) == "(90, 140) uint8 True\n"
    assert list(tmp_path.rglob("*.onnx")), "the engine was not stored in the cache"


def test_every_command_shows_its_help_without_extras_or_heavy_imports() -> None:
    result = json.loads(run(WALK_HELP))
    shown: dict[str, tuple[int, str]] = result["shown"]
    assert {"infer", "bench", "export", "models"} <= set(shown)
    for path, (code, text) in shown.items():
        assert code == 0, f"fasterseg {path} --help exits with {code}"
        assert text.startswith("Usage: fasterseg") or "\nUsage: fasterseg" in text, path
    assert not {*HEAVY, *EXTRAS} & set(result["modules"])


@pytest.mark.parametrize(
    ("program", "module"),
    [
        ("fasterseg", "fasterseg.cli.main"),
        ("fasterseg-infer", "fasterseg.cli.infer"),
        ("fasterseg-bench", "fasterseg.cli.bench"),
    ],
)
def test_every_program_shows_its_help_without_extras_or_heavy_imports(
    program: str, module: str
) -> None:
    result = json.loads(run(ENTRY_HELP.format(program=program, module=module)))
    assert result["code"] == 0
    assert f"Usage: {program}" in result["text"]
    assert "130" in result["text"], "the exit codes belong to the help"
    assert not {*HEAVY, *EXTRAS} & set(result["modules"])


@pytest.mark.parametrize("arguments", [[], ["infer"], ["bench"]])
def test_source_tree_runs_without_being_installed(arguments: list[str]) -> None:
    text = run_command([sys.executable, "-m", "fasterseg", *arguments, "--help"])
    assert " ".join(["fasterseg", *arguments, "[OPTIONS]"]) in text


def test_package_import_costs_nothing() -> None:
    loaded = json.loads(run("import json, fasterseg\nprint(json.dumps(sorted(sys.modules)))"))
    own = {name for name in loaded if name.startswith("fasterseg")}
    assert own == {"fasterseg"}
    assert not {*HEAVY, "typer"} & set(loaded)
