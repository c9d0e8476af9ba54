"""The rules of ARCHITECTURE.md as functions of a source tree; no dependency, nothing is imported.

Each rule takes the parsed tree and returns its violations, one line of text each; an empty list
is a pass. `test_architecture.py` applies them to the package and proves on small fake trees that
each can fail.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final

PACKAGE: Final = "fasterseg"

LAYERS: Final[tuple[tuple[str, ...], ...]] = (
    ("fasterseg", "errors", "registry", "config", "cache", "cores", "finding", "interrupts"),
    (
        "types", "labels", "palettes", "datasets", "preprocess", "metrics", "native",
        "native_library", "overlay", "plots", "streets", "arch",
    ),
    ("graph",),
    ("runtime",),
    ("stream", "bench"),
    ("nn",),
    ("deploy", "search", "serve"),
    ("retarget",),
    ("cli",),
    ("__main__",),
)  # fmt: skip
"""Units (files and folders directly under the package), lowest first. A unit sees lower ones."""

OPEN_LAYERS: Final = frozenset({0, 1})
"""Layers whose units may also import each other (without cycles)."""

NARROWED: Final[Mapping[str, tuple[str, ...]]] = {
    "arch": ("types",),
    "deploy": ("graph", "runtime"),
    "nn": (
        "graph", "runtime.base", "runtime.choice", "runtime.cuda_arrays", "runtime.driver",
        "runtime.execution", "runtime.kernels", "runtime.plugins",
    ),
    "search": ("nn",),
    "serve": ("stream",),
}  # fmt: skip
"""Unit -> what it sees besides itself, layer 0 and (all but `arch`) layer 1, and nothing else."""

IMPORTERS: Final[Mapping[str, tuple[str, ...]]] = {
    "av": ("stream.sources*", "stream.sinks*", "stream.capabilities"),
    "click": ("cli.*",),
    "cuda": ("runtime.cuda",),
    "cv2": (
        "preprocess", "overlay", "datasets.*", "streets.*", "stream.*", "bench.submission",
        "search.data", "search.augment",
    ),
    "google": ("graph.inlining",),
    "jinja2": ("bench.report", "retarget.report"),
    "matplotlib": ("plots", "plots.*"),
    "numpy": (
        "labels", "datasets.*", "preprocess", "metrics", "native", "overlay", "plots.*",
        "streets.*", "graph.*", "runtime.*", "stream.*", "bench.*", "nn.*", "deploy.*", "search.*",
        "serve.*", "retarget.*", "cli.*",
    ),
    "onnx": ("graph.*", "deploy.export"),
    "onnxruntime": ("runtime.onnxrt*",),
    "openvino": ("runtime.openvino*",),
    "polygraphy": ("deploy.layers",),
    "prometheus_client": ("serve.*",),
    "safetensors": ("graph.weights", "nn.weights"),
    "starlette": ("serve.*",),
    "tensorboard": ("search.board",),
    "tensorrt": ("runtime.trt_surface",),
    "tensorrt_rtx": ("runtime.trt_surface",),
    "torch": ("nn.*", "search.*"),
    "typer": ("cli.*",),
    "uvicorn": ("serve.*",),
}  # fmt: skip
"""Third-party package -> the modules that may import it. A package not listed: nobody."""


@dataclass(frozen=True)
class Module:
    """One parsed file.

    Attributes:
        name: dotted name with the package; a folder's `__init__.py` bears the folder's name.
        path: the file.
        tree: its syntax tree.
        lines: number of lines.
    """

    name: str
    path: Path
    tree: ast.Module
    lines: int

    @property
    def inner(self) -> str:
        """Name without the package: "graph.emit"; the package itself keeps its name."""
        return self.name.removeprefix(PACKAGE + ".")

    @property
    def unit(self) -> str:
        """File or folder directly under the package that it belongs to."""
        return self.inner.partition(".")[0]


Tree = Mapping[str, Module]


@dataclass(frozen=True)
class Import:
    """One imported name.

    Attributes:
        target: dotted module, as deep as it is known to be one.
        line: line number.
        top_level: whether it runs when the module is imported.
        type_checking: whether only type checkers see it.
    """

    target: str
    line: int
    top_level: bool
    type_checking: bool


def load(root: Path) -> dict[str, Module]:
    """Parse every file of the package folder `root`, whatever that folder's own name is."""
    modules: dict[str, Module] = {}
    for path in sorted(root.rglob("*.py")):
        parts = [PACKAGE, *path.relative_to(root).with_suffix("").parts]
        if parts[-1] == "__init__":
            parts.pop()
        text = path.read_text(encoding="utf-8")
        name = ".".join(parts)
        modules[name] = Module(name, path, ast.parse(text, str(path)), len(text.splitlines()))
    return modules


def imports(module: Module, tree: Tree) -> list[Import]:
    """Every import of a module: statements at any depth and `import_module("literal")`."""
    found: list[Import] = []

    def visit(node: ast.AST, top_level: bool, type_checking: bool) -> None:
        for target in _targets(node, module, tree):
            line: int = getattr(node, "lineno", 0)
            found.append(Import(target, line, top_level, type_checking))
        if isinstance(node, ast.If) and _is_type_checking(node.test):
            for statement in node.body:
                visit(statement, top_level, True)
            for statement in node.orelse:
                visit(statement, top_level, type_checking)
            return
        deeper = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for child in ast.iter_child_nodes(node):
            visit(child, top_level and not deeper, type_checking)

    visit(module.tree, True, False)
    return found


def _is_type_checking(test: ast.expr) -> bool:
    return ast.unparse(test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def _targets(node: ast.AST, module: Module, tree: Tree) -> list[str]:
    """Dotted modules that one syntax node imports."""
    match node:
        case ast.Import(names=names):
            return [alias.name for alias in names]
        case ast.ImportFrom(module=base, names=names, level=level):
            origin = _absolute(base or "", level, module)
            joined = [f"{origin}.{alias.name}" for alias in names]
            return [name if name in tree else origin for name in joined]
        case ast.Call(func=ast.Name(id=called), args=[ast.Constant(value=str(target)), *_]):
            return [target] if called in ("import_module", "__import__") else []
        case ast.Call(func=ast.Attribute(attr="import_module"), args=[ast.Constant(value=target)]):
            return [str(target)]
    return []


def _absolute(base: str, level: int, module: Module) -> str:
    """The absolute name behind a relative import."""
    if level == 0:
        return base
    package = module.name.split(".")
    if module.path.name != "__init__.py":
        package.pop()
    kept = package[: len(package) - (level - 1)]
    return ".".join([*kept, base] if base else kept)


def _inner(target: str) -> str:
    return target.removeprefix(PACKAGE + ".")


def _is_own(target: str) -> bool:
    return target.partition(".")[0] == PACKAGE


def _level_of(unit: str) -> int | None:
    for level, units in enumerate(LAYERS):
        if unit in units:
            return level
    return None


def unknown_units(tree: Tree) -> list[str]:
    """Files and folders directly under the package that no layer lists."""
    units = {module.unit for module in tree.values()}
    return [f"'{unit}' is in no layer" for unit in sorted(units) if _level_of(unit) is None]


def upward_imports(tree: Tree) -> list[str]:
    """Imports against the layers, at any depth; type-only ones count except in the package."""
    found: list[str] = []
    for module in tree.values():
        for imported in imports(module, tree):
            if not _is_own(imported.target):
                continue
            if module.name == PACKAGE and imported.type_checking:
                continue
            if not _may_see(module.unit, _inner(imported.target)):
                found.append(
                    f"{module.name}:{imported.line} imports {imported.target}, which its layer "
                    "does not see"
                )
    return found


def _may_see(unit: str, target: str) -> bool:
    """Whether a unit may import a module (name without the package)."""
    other = target.partition(".")[0]
    own_level, level = _level_of(unit), _level_of(other)
    if own_level is None or level is None:
        return False
    if other == unit or level == 0:
        return True
    if unit in NARROWED:
        if any(target == name or target.startswith(name + ".") for name in NARROWED[unit]):
            return True
        return level == 1 and unit != "arch"
    if own_level == level:
        return level in OPEN_LAYERS and other != "arch"
    return level < own_level


def package_shortcuts(tree: Tree) -> list[str]:
    """Uses of the package's lazy public names inside the package: upward imports in disguise."""
    found: list[str] = []
    for module in tree.values():
        for node in ast.walk(module.tree):
            names: list[str] = []
            match node:
                case ast.ImportFrom(module="fasterseg", names=aliases, level=0):
                    names = [alias.name for alias in aliases]
                case ast.Attribute(value=ast.Name(id="fasterseg"), attr=name):
                    names = [name]
            line: int = getattr(node, "lineno", 0)
            found += [
                f"{module.name}:{line} takes {name} from the package; import its module"
                for name in names
                if f"{PACKAGE}.{name}" not in tree and not name.startswith("__")
            ]
    return found


def import_cycles(tree: Tree) -> list[str]:
    """Cycles of imports that run at import time, each written once."""
    edges = {
        name: sorted(
            {
                imported.target
                for imported in imports(module, tree)
                if imported.top_level and not imported.type_checking and imported.target in tree
            }
            - {name}
        )
        for name, module in tree.items()
    }
    cycles: set[str] = set()
    done: set[str] = set()

    def walk(name: str, trail: list[str]) -> None:
        if name in trail:
            ring = trail[trail.index(name) :]
            first = ring.index(min(ring))
            cycles.add(" -> ".join([*ring[first:], *ring[:first], ring[first]]))
            return
        if name in done:
            return
        for target in edges[name]:
            walk(target, [*trail, name])
        done.add(name)

    for name in edges:
        walk(name, [])
    return sorted(cycles)


def foreign_imports(tree: Tree) -> list[str]:
    """Third-party imports outside the table, at any depth; type-only ones are free."""
    found: list[str] = []
    for module in tree.values():
        for imported in imports(module, tree):
            package = imported.target.partition(".")[0]
            if imported.type_checking or package in sys.stdlib_module_names:
                continue
            allowed = IMPORTERS.get(package, ())
            if package == PACKAGE or any(fnmatchcase(module.inner, glob) for glob in allowed):
                continue
            who = ", ".join(allowed) or "nobody in the package"
            found.append(f"{module.name}:{imported.line} imports {package}; allowed: {who}")
    return found


def imports_of(package: str, folder: Path) -> list[str]:
    """Files under a folder that import a top-level package."""
    found: list[str] = []
    for path in sorted(folder.rglob("*.py")):
        module = Module(path.stem, path, ast.parse(path.read_text(encoding="utf-8")), 0)
        for imported in imports(module, {}):
            if imported.target.partition(".")[0] == package:
                found.append(f"{path}:{imported.line} imports {package}")
    return found
