"""ARCHITECTURE.md, executable: every rule holds for the package, and every rule can fail."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from tests import architecture_rules as structure
from tests import style_rules as style
from tests.architecture_rules import Tree

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "fasterseg"
DOCUMENT = ROOT / "ARCHITECTURE.md"

Rule = Callable[[Tree], list[str]]
Fake = Callable[[Mapping[str, str]], Path]


@pytest.fixture(scope="module")
def tree() -> Tree:
    """The parsed package."""
    return structure.load(PACKAGE)


@pytest.fixture
def fake(tmp_path: Path) -> Fake:
    """Writes `path -> text` as a package folder and returns it."""

    def write(files: Mapping[str, str]) -> Path:
        root = tmp_path / "fasterseg"
        root.mkdir()
        for name, text in {"__init__.py": '"""Doc."""\n', **files}.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        return root

    return write


def report(violations: list[str]) -> str:
    """The violations, one per line."""
    return "\n" + "\n".join(violations)


@pytest.mark.parametrize(
    "rule",
    [
        structure.unknown_units,
        structure.upward_imports,
        structure.package_shortcuts,
        structure.import_cycles,
        structure.foreign_imports,
        style.long_files,
        style.prints,
        style.guarded_imports,
        style.blind_excepts,
        style.undocumented,
        style.without_future_annotations,
        style.broken_registries,
    ],
)
def test_package_keeps_the_rule(rule: Rule, tree: Tree) -> None:
    violations = rule(tree)
    assert not violations, report(violations)


def test_engines_folder_holds_no_python() -> None:
    assert not list((ROOT / "engines").rglob("*.py"))


@pytest.mark.parametrize("folder", ["fasterseg", "tests", "benchmarks"])
def test_nothing_imports_benchmarks(folder: str) -> None:
    violations = structure.imports_of("benchmarks", ROOT / folder)
    assert not violations, report(violations)


def test_the_known_registries_are_found(tree: Tree) -> None:
    found = [where for where, _ in style.registries(tree)]
    assert any(where.startswith("fasterseg.runtime.base:") for where in found), found
    assert any(where.startswith("fasterseg:") for where in found), found


def test_console_scripts_name_existing_functions(tree: Tree) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    violations = style.unresolved(project["scripts"].values(), tree)
    assert not violations, report(violations)


def test_architecture_document_draws_the_tree_as_it_is() -> None:
    violations = style.undrawn(DOCUMENT.read_text(encoding="utf-8"), PACKAGE)
    assert not violations, report(violations)


def test_unknown_file_is_reported(fake: Fake) -> None:
    tree = structure.load(fake({"helpers.py": ""}))
    assert structure.unknown_units(tree) == ["'helpers' is in no layer"]


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("graph/emit.py", "from fasterseg.runtime.base import Engine\n"),
        ("graph/emit.py", "def f():\n    import fasterseg.runtime.base\n"),
        ("graph/emit.py", "from ..runtime import base\n"),
        ("graph/emit.py", "from fasterseg import runtime\n"),
        ("graph/emit.py", "from importlib import import_module\nimport_module('fasterseg.nn')\n"),
        ("graph/emit.py", "if TYPE_CHECKING:\n    import fasterseg.nn\n"),
        ("types.py", "import fasterseg.graph.emit\n"),
        ("errors.py", "import fasterseg.types\n"),
        ("arch/plan.py", "import fasterseg.labels\n"),
        ("labels.py", "import fasterseg.arch.plan\n"),
        ("stream/sources.py", "import fasterseg.bench.timing\n"),
        ("bench/engines.py", "import fasterseg.stream.sources\n"),
        ("nn/engine.py", "import fasterseg.runtime.onnxrt\n"),
        ("nn/engine.py", "import fasterseg.stream.sources\n"),
        ("search/cost.py", "import fasterseg.runtime.base\n"),
        ("deploy/export.py", "import fasterseg.nn.network\n"),
        ("serve/app.py", "import fasterseg.search.derive\n"),
        ("__init__.py", "import fasterseg.stream.segmenter\n"),
        ("__init__.py", "def load():\n    import fasterseg.stream.segmenter\n"),
    ],
)
def test_import_against_the_layers_is_reported(fake: Fake, path: str, text: str) -> None:
    packages = {f"{name}/__init__.py": "" for name in ("graph", "runtime", "nn")}
    files = {**packages, "runtime/base.py": "", path: text}
    violations = structure.upward_imports(structure.load(fake(files)))
    assert len(violations) == 1, violations


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("__init__.py", "if TYPE_CHECKING:\n    from fasterseg.stream.segmenter import load\n"),
        ("nn/engine.py", "from fasterseg.runtime.base import Engine\nimport fasterseg.graph.x\n"),
        ("search/cost.py", "import fasterseg.nn.network\nimport fasterseg.arch.plan\n"),
        ("labels.py", "import fasterseg.types\n"),
        ("arch/plan.py", "import fasterseg.types\nimport fasterseg.config\n"),
        ("cli/main.py", "def f():\n    import fasterseg.search.derive\n"),
    ],
)
def test_import_along_the_layers_is_allowed(fake: Fake, path: str, text: str) -> None:
    assert structure.upward_imports(structure.load(fake({path: text}))) == []


@pytest.mark.parametrize(
    "text", ["from fasterseg import load\n", "import fasterseg\nx = fasterseg.load()\n"]
)
def test_taking_public_names_inside_the_package_is_reported(fake: Fake, text: str) -> None:
    tree = structure.load(
        fake({"graph/emit.py": "import fasterseg\nfasterseg.__version__\n" + text})
    )
    assert len(structure.package_shortcuts(tree)) == 1


def test_cycle_is_reported_once_with_its_members(fake: Fake) -> None:
    files = {
        "graph/a.py": "from fasterseg.graph import b\n",
        "graph/b.py": "from fasterseg.graph.c import name\n",
        "graph/c.py": "import fasterseg.graph.a\n",
    }
    assert structure.import_cycles(structure.load(fake(files))) == [
        "fasterseg.graph.a -> fasterseg.graph.b -> fasterseg.graph.c -> fasterseg.graph.a"
    ]


def test_late_or_type_only_import_makes_no_cycle(fake: Fake) -> None:
    files = {
        "graph/a.py": "import fasterseg.graph.b\n",
        "graph/b.py": "if TYPE_CHECKING:\n    import fasterseg.graph.a\n"
        "def f():\n    import fasterseg.graph.a\n",
    }
    assert structure.import_cycles(structure.load(fake(files))) == []


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("graph/emit.py", "import torch\n"),
        ("graph/emit.py", "def f():\n    from torch.nn import Module\n"),
        ("graph/emit.py", "import importlib\nimportlib.import_module('torch')\n"),
        ("arch/plan.py", "import numpy as np\n"),
        ("types.py", "import numpy as np\n"),
        ("nn/network.py", "import cv2\n"),
        ("stream/pipeline.py", "import av\n"),
        ("runtime/select.py", "import onnxruntime\n"),
        ("bench/report.py", "import pandas\n"),
        ("cli/main.py", "import nncf\n"),
    ],
)
def test_package_outside_its_importers_is_reported(fake: Fake, path: str, text: str) -> None:
    assert len(structure.foreign_imports(structure.load(fake({path: text})))) == 1


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("types.py", "if TYPE_CHECKING:\n    import numpy as np\n"),
        ("stream/sources_network.py", "import av\nimport numpy\nimport cv2\n"),
        ("nn/network.py", "from torch import nn\n"),
        ("arch/plan.py", "import json\nfrom collections import Counter\n"),
    ],
)
def test_package_among_its_importers_is_allowed(fake: Fake, path: str, text: str) -> None:
    assert structure.foreign_imports(structure.load(fake({path: text}))) == []


def test_long_file_needs_a_reason_and_a_reason_needs_a_long_file(fake: Fake) -> None:
    tree = structure.load(fake({"graph/emit.py": "x = 1\n" * (style.MAXIMUM_LINES + 1)}))
    assert len(style.long_files(tree, {})) == 1
    assert len(style.long_files(tree, {"fasterseg.graph.emit": ""})) == 1
    assert style.long_files(tree, {"fasterseg.graph.emit": "a table"}) == []
    reasons = {"fasterseg.graph.emit": "a table", "fasterseg.graph.gone": "it was long once"}
    assert style.long_files(tree, reasons) == ["LONG_FILES no longer needs fasterseg.graph.gone"]


def test_print_is_reported_outside_the_programs(fake: Fake) -> None:
    tree = structure.load(fake({"graph/emit.py": "print(1)\n", "cli/main.py": "print(1)\n"}))
    assert style.prints(tree) == ["fasterseg.graph.emit:1 prints; only cli does"]


@pytest.mark.parametrize(
    "text",
    [
        "try:\n    import torch\nexcept ImportError:\n    torch = None\n",
        "try:\n    from a import b\nexcept (ModuleNotFoundError, OSError):\n    pass\n",
        "with contextlib.suppress(ImportError):\n    import torch\n",
    ],
)
def test_guarded_import_is_reported(fake: Fake, text: str) -> None:
    tree = structure.load(fake({"graph/emit.py": text}))
    assert len(style.guarded_imports(tree)) == 1


def test_import_guarded_against_other_errors_is_allowed(fake: Fake) -> None:
    text = "try:\n    import json\nexcept OSError:\n    pass\n"
    assert style.guarded_imports(structure.load(fake({"graph/emit.py": text}))) == []


@pytest.mark.parametrize("kind", ["", " Exception", " BaseException as e", " (OSError, Exception)"])
def test_blind_except_is_reported(fake: Fake, kind: str) -> None:
    tree = structure.load(fake({"graph/emit.py": f"try:\n    f()\nexcept{kind}:\n    pass\n"}))
    assert len(style.blind_excepts(tree, {})) == 1


def test_blind_except_that_tidies_up_and_raises_again_is_allowed(fake: Fake) -> None:
    text = "try:\n    f()\nexcept BaseException:\n    close()\n    raise\n"
    assert style.blind_excepts(structure.load(fake({"graph/emit.py": text})), {}) == []


def test_bare_except_has_no_excuse_and_an_unused_reason_is_reported(fake: Fake) -> None:
    files = {
        "graph/a.py": "try:\n    f()\nexcept:\n    pass\n",
        "graph/b.py": "try:\n    f()\nexcept Exception:\n    pass\n",
    }
    tree = structure.load(fake(files))
    violations = style.blind_excepts(
        tree, {"fasterseg.graph.a": "reason", "fasterseg.graph.b": "reason"}
    )
    assert violations == [
        "fasterseg.graph.a:3 has a bare except",
        "BLIND_EXCEPTS no longer needs fasterseg.graph.a",
    ]


@pytest.mark.parametrize(
    "text",
    [
        "",
        '"""Doc."""\ndef public():\n    pass\n',
        '"""Doc."""\nclass Public:\n    x = 1\n',
        '"""Doc."""\nclass Public:\n    """Doc."""\n    async def method(self):\n        pass\n',
    ],
)
def test_missing_docstring_is_reported(fake: Fake, text: str) -> None:
    assert len(style.undocumented(structure.load(fake({"graph/emit.py": text})))) == 1


def test_private_and_nested_definitions_need_no_docstring(fake: Fake) -> None:
    text = '"""Doc."""\ndef _f():\n    def g(): ...\nclass _C:\n    def m(self): ...\n'
    assert style.undocumented(structure.load(fake({"graph/emit.py": text}))) == []


@pytest.mark.parametrize(
    "text", ["x: int = 1\n", "def f(a: int): pass\n", "def f() -> None: ...\n"]
)
def test_missing_future_import_is_reported_where_there_are_annotations(
    fake: Fake, text: str
) -> None:
    files = {"graph/a.py": text, "graph/b.py": "x = 1\n"}
    violations = style.without_future_annotations(structure.load(fake(files)))
    assert violations == ["fasterseg.graph.a lacks `from __future__ import annotations`"]


@pytest.mark.parametrize(
    ("registry", "complaint"),
    [
        ('{"a": "fasterseg.graph.emit:Gone"}', "does not define Gone"),
        ('{"a": "fasterseg.graph.gone:emit"}', "there is no module"),
        ('{"a": "fasterseg.graph.emit:emit", "b": "graph.emit:emit"}', "is not module:attribute"),
        ('{"a": "fasterseg.graph.emit:emit", "b": emit}', "is not module:attribute"),
        ('{"b": "fasterseg.graph.emit:emit", "a": "fasterseg.graph.emit:K"}', "is not sorted"),
    ],
)
def test_broken_registry_is_reported(fake: Fake, registry: str, complaint: str) -> None:
    files = {
        "graph/emit.py": "def emit(): ...\nK: int = 1\n",
        "runtime/base.py": f"ENGINES: Final[dict[str, str]] = {registry}\n",
    }
    violations = style.broken_registries(structure.load(fake(files)))
    assert len(violations) == 1
    assert complaint in violations[0]


def test_registry_may_name_functions_classes_values_and_imports(fake: Fake) -> None:
    entries = ", ".join(f'"{name}": "fasterseg.graph.emit:{name}"' for name in "Cfjvw")
    files = {
        "graph/emit.py": "import json as j\ndef f(): ...\nclass C: ...\nv = 1\nw: int = 2\n",
        "runtime/base.py": "R = {" + entries + "}\n",
    }
    assert style.broken_registries(structure.load(fake(files))) == []


@pytest.mark.parametrize(
    "text", ["import benchmarks.soak\n", "def f():\n    from benchmarks import soak\n"]
)
def test_import_of_benchmarks_is_reported(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.py").write_text(text, encoding="utf-8")
    assert len(structure.imports_of("benchmarks", tmp_path)) == 1


def test_document_and_tree_are_compared_both_ways(fake: Fake) -> None:
    root = fake({"errors.py": "", "graph/__init__.py": "", "graph/emit.py": ""})
    head = "text\n```\nother/\n  a.py\n```\n```\nfasterseg/\n  errors.py    one line\n"
    assert style.undrawn(head + "  graph/       graphs\n    emit.py    one line\n```\n", root) == []
    assert style.undrawn(head + "```\n", root) == ["fasterseg/graph/emit.py is not in the tree"]
    drawn = head + "  graph/\n    emit.py\n    gone.py\n```\n"
    assert style.undrawn(drawn, root) == [
        "fasterseg/graph/gone.py is in the tree and does not exist"
    ]
