"""The rules that concern single files, and the one that compares ARCHITECTURE.md with the tree.

Same form as in `architecture_rules.py`: a rule takes a parsed tree and returns its violations.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

from tests.architecture_rules import Module, Tree

MAXIMUM_LINES: Final = 350

LONG_FILES: Final[Mapping[str, str]] = {}
"""Module longer than `MAXIMUM_LINES` -> why. An entry that is no longer needed is an error."""

BLIND_EXCEPTS: Final[Mapping[str, str]] = {
    "fasterseg.cli.options": "the one edge where errors end as a message and an exit code",
    "fasterseg.stream.batching": "what an engine raises belongs to the callers of its batch",
    "fasterseg.stream.readahead": "a thread keeps its exception for the thread that joins it",
}
"""Module that may catch `Exception` or `BaseException` -> why; unneeded entries are errors."""

ENTRY: Final = re.compile(r"(fasterseg(?:\.\w+)+):(\w+)")
"""A registry entry, `"module:attribute"`."""


def long_files(tree: Tree, reasons: Mapping[str, str] = LONG_FILES) -> list[str]:
    """Files over the limit without a reason, and reasons without such a file."""
    long = {name: module.lines for name, module in tree.items() if module.lines > MAXIMUM_LINES}
    found = [
        f"{name} has {lines} lines, over {MAXIMUM_LINES}; split it or add a reason to LONG_FILES"
        for name, lines in long.items()
        if not reasons.get(name)
    ]
    stale = [f"LONG_FILES no longer needs {name}" for name in reasons if name not in long]
    return found + stale


def prints(tree: Tree) -> list[str]:
    """Calls of `print` outside the command line programs."""
    return [
        f"{module.name}:{node.lineno} prints; only cli does"
        for module in tree.values()
        if module.unit != "cli"
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "print"
    ]


def _handled(handler: ast.ExceptHandler) -> list[str]:
    """Names of the exceptions a handler catches; empty for a bare one."""
    if handler.type is None:
        return []
    kinds = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return [ast.unparse(kind) for kind in kinds]


def _raises_again(handler: ast.ExceptHandler) -> bool:
    last = handler.body[-1]
    return isinstance(last, ast.Raise) and last.exc is None


def guarded_imports(tree: Tree) -> list[str]:
    """Import statements whose failure is caught, by `except` or by `suppress`."""
    missing = {"ImportError", "ModuleNotFoundError"}
    found: list[str] = []
    for module in tree.values():
        for node in ast.walk(module.tree):
            caught: set[str] = set()
            if isinstance(node, ast.Try):
                caught = {kind for handler in node.handlers for kind in _handled(handler)}
            elif isinstance(node, ast.With):
                calls = [item.context_expr for item in node.items]
                caught = {
                    ast.unparse(argument)
                    for call in calls
                    if isinstance(call, ast.Call) and ast.unparse(call.func).endswith("suppress")
                    for argument in call.args
                }
            if isinstance(node, ast.Try | ast.With) and caught & missing:
                found += [
                    f"{module.name}:{inner.lineno} imports inside a guard against ImportError"
                    for statement in node.body
                    for inner in ast.walk(statement)
                    if isinstance(inner, ast.Import | ast.ImportFrom)
                ]
    return found


def blind_excepts(tree: Tree, reasons: Mapping[str, str] = BLIND_EXCEPTS) -> list[str]:
    """Bare `except`, and `except Exception` or `BaseException` in modules without a reason.

    A handler that ends in `raise` swallows nothing: it only tidies up.
    """
    found: list[str] = []
    used: set[str] = set()
    for module in tree.values():
        for node in ast.walk(module.tree):
            if not isinstance(node, ast.ExceptHandler):
                continue
            if node.type is None:
                found.append(f"{module.name}:{node.lineno} has a bare except")
            elif {"Exception", "BaseException"} & set(_handled(node)) and not _raises_again(node):
                used.add(module.name)
                if not reasons.get(module.name):
                    found.append(f"{module.name}:{node.lineno} catches {ast.unparse(node.type)}")
    stale = [f"BLIND_EXCEPTS no longer needs {name}" for name in reasons if name not in used]
    return found + stale


def undocumented(tree: Tree) -> list[str]:
    """Modules, public classes, functions and methods without a docstring."""
    found: list[str] = []
    for module in tree.values():
        if ast.get_docstring(module.tree) is None:
            found.append(f"{module.name} has no module docstring")
        for qualified, node in _public(module.tree, ""):
            if ast.get_docstring(node) is None:
                found.append(f"{module.name}:{node.lineno} {qualified} has no docstring")
    return found


_Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def _public(node: ast.Module | ast.ClassDef, prefix: str) -> Iterator[tuple[str, _Definition]]:
    """Public definitions of a module with the methods of its public classes."""
    for child in node.body:
        if not isinstance(child, _Definition) or child.name.startswith("_"):
            continue
        decorators = {ast.unparse(decorator).split(".")[-1] for decorator in child.decorator_list}
        if decorators & {"overload", "override", "setter"}:
            continue
        yield prefix + child.name, child
        if isinstance(child, ast.ClassDef):
            yield from _public(child, f"{prefix}{child.name}.")


def without_future_annotations(tree: Tree) -> list[str]:
    """Modules that annotate something without postponing the evaluation of annotations."""
    found: list[str] = []
    for module in tree.values():
        postponed = any(
            isinstance(node, ast.ImportFrom)
            and node.module == "__future__"
            and any(alias.name == "annotations" for alias in node.names)
            for node in module.tree.body
        )
        annotates = any(
            isinstance(node, ast.AnnAssign)
            or (isinstance(node, ast.arg) and node.annotation is not None)
            or (isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.returns)
            for node in ast.walk(module.tree)
        )
        if annotates and not postponed:
            found.append(f"{module.name} lacks `from __future__ import annotations`")
    return found


def registries(tree: Tree) -> Iterator[tuple[str, dict[str, str]]]:
    """Every dict literal that holds a `"module:attribute"` string, with where it stands."""
    for module in tree.values():
        for node in ast.walk(module.tree):
            if not isinstance(node, ast.Dict):
                continue
            pairs = {
                ast.unparse(key).strip("'\""): str(getattr(value, "value", ast.unparse(value)))
                for key, value in zip(node.keys, node.values, strict=True)
                if key is not None
            }
            if any(ENTRY.fullmatch(entry) for entry in pairs.values()):
                yield f"{module.name}:{node.lineno}", pairs


def broken_registries(tree: Tree) -> list[str]:
    """Entries that name nothing, and registries whose names are not sorted."""
    found: list[str] = []
    for where, entries in registries(tree):
        found += [f"{where} {reason}" for reason in unresolved(entries.values(), tree)]
        if list(entries) != sorted(entries):
            found.append(f"{where} is not sorted by name")
    return found


def unresolved(entries: Iterable[str], tree: Tree) -> list[str]:
    """Those `"module:attribute"` strings whose module or attribute does not exist."""
    found: list[str] = []
    for entry in entries:
        match = ENTRY.fullmatch(entry)
        if match is None:
            found.append(f"'{entry}' is not module:attribute")
        elif match[1] not in tree:
            found.append(f"'{entry}': there is no module {match[1]}")
        elif match[2] not in _bound(tree[match[1]]):
            found.append(f"'{entry}': {match[1]} does not define {match[2]}")
    return found


def _bound(module: Module) -> set[str]:
    """Names that a module binds at its top level."""
    names: set[str] = set()
    for node in module.tree.body:
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                names.add(name)
            case ast.ClassDef(name=name):
                names.add(name)
            case ast.Assign(targets=targets):
                names |= {target.id for target in targets if isinstance(target, ast.Name)}
            case ast.AnnAssign(target=ast.Name(id=name)):
                names.add(name)
            case ast.ImportFrom(names=aliases) | ast.Import(names=aliases):
                names |= {alias.asname or alias.name for alias in aliases}
    return names


def drawn_files(document: str, folder: str) -> set[str]:
    """Paths under `folder/` that the tree block of a Markdown document draws.

    The block is the first fenced one with a line that starts with `folder/`. Each line is a
    name (a folder ends in a slash), indented by its depth, then two spaces or more and prose.
    """
    for block in re.findall(r"^```\w*\n(.*?)^```", document, re.MULTILINE | re.DOTALL):
        if re.search(rf"^{re.escape(folder)}/", block, re.MULTILINE):
            return {path for path in _drawn(block) if path.startswith(folder + "/")}
    return set()


def _drawn(block: str) -> Iterator[str]:
    trail: list[tuple[int, str]] = []
    for line in block.splitlines():
        if not line.strip():
            continue
        name = line.split()[0]
        indent = len(line) - len(line.lstrip())
        while trail and trail[-1][0] >= indent:
            trail.pop()
        if name.endswith("/"):
            trail.append((indent, name))
        else:
            yield "".join(part for _, part in trail) + name


def undrawn(document: str, root: Path) -> list[str]:
    """Modules the document's tree lacks, and files it draws that do not exist.

    Args:
        document: text of ARCHITECTURE.md.
        root: the package folder.
    """
    drawn = drawn_files(document, root.name)
    there = {
        path.relative_to(root.parent).as_posix()
        for path in root.rglob("*.py")
        if path.name != "__init__.py"
    }
    missing = [f"{path} is not in the tree" for path in sorted(there - drawn)]
    gone = [
        f"{path} is in the tree and does not exist"
        for path in sorted(drawn)
        if not (root.parent / path).is_file()
    ]
    return missing + gone
