"""Run in a process of its own by `test_tensorrt_bindings.py`: our Protocols against real bindings.

Arguments: a folder with an unpacked bindings wheel on the path, and the module's name. Prints what
does not fit, one line each.
"""

from __future__ import annotations

import importlib
import re
import sys
import typing
from typing import Any

from fasterseg.runtime import trt_surface


def signatures(function: Any, name: str) -> list[list[str]]:
    """Parameters of each overload, as pybind11 writes them: "flags: int = 0", without self."""
    found = []
    for line in (function.__doc__ or "").splitlines():
        match = re.match(rf"(?:\d+\. )?{name}\((.*)\) ->", line.strip())
        if match is not None and "*args" not in match[1]:
            parameters, depth, start = [], 0, 0
            text = match[1] + ","
            for index, letter in enumerate(text):
                depth += (letter in "([<") - (letter in ")]>")
                if letter == "," and depth == 0:
                    parameters.append(text[start:index].strip())
                    start = index + 1
            found.append([p for p in parameters if p and not p.startswith("self")])
    return found


def accepts(function: Any, name: str, count: int) -> bool:
    """Whether some overload takes so many arguments by position."""
    return any(
        sum("=" not in parameter for parameter in parameters) <= count <= len(parameters)
        for parameters in signatures(function, name)
    )


def misfits(module: Any) -> list[str]:
    """What we call and the module does not have, or has with other parameters."""
    found = []
    for name, protocol in trt_surface.CLASSES.items():
        real = getattr(module, name, None)
        if real is None:
            found.append(f"there is no {name}")
            continue
        for member, hint in typing.get_type_hints(protocol).items():
            if member.startswith("__"):
                continue
            if not hasattr(real, member):
                found.append(f"{name} has no {member}")
            elif getattr(hint, "__args__", None) and "Callable" in str(hint):
                count = len(hint.__args__) - 1
                if not accepts(getattr(real, member), member, count):
                    found.append(f"{name}.{member} does not take {count} arguments")
    for name, members in trt_surface.MEMBERS.items():
        real = getattr(module, name, None)
        found += [f"{name} has no {member}" for member in members if not hasattr(real, member)]
    for name in ("Builder", "OnnxParser", "Runtime"):
        count = len(typing.get_type_hints(trt_surface.Api)[name].__args__) - 1
        if not accepts(getattr(module, name).__init__, "__init__", count):
            found.append(f"{name}() does not take {count} arguments")
    for name in ("ILogger", "IProgressMonitor"):
        if not isinstance(getattr(module, name, None), type):
            found.append(f"there is no class {name} to derive from")
    return found


if __name__ == "__main__":
    sys.path.insert(0, sys.argv[1])
    loaded = importlib.import_module(sys.argv[2])
    print("version", loaded.__version__)
    for line in misfits(loaded):
        print(line)
