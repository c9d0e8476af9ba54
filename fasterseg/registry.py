"""Resolve `"module:attribute"` entries of a dict literal: the only upward references there are."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from fasterseg.errors import MissingExtraError, UnknownNameError

EXTRA_OF_PACKAGE = {
    "cuda": "cuda",
    "matplotlib": "report",
    "jinja2": "report",
    "openvino": "openvino",
    "polygraphy": "tensorrt",
    "prometheus_client": "serve",
    "starlette": "serve",
    "tensorboard": "train",
    "tensorrt": "tensorrt",
    "tensorrt_rtx": "tensorrt-rtx",
    "torch": "train",
    "uvicorn": "serve",
    "websockets": "serve",
}
"""Top-level package -> the extra of fasterseg that installs it."""


def resolve(registry: Mapping[str, str], kind: str, name: str) -> Any:
    """Import and return the object that `registry` lists under `name`.

    Args:
        registry: name -> `"module:attribute"`.
        kind: what the registry holds, for the message ("engine", "dataset").
        name: the entry wanted.

    Raises:
        UnknownNameError: the name is not listed; the message lists the known ones.
        MissingExtraError: the module needs an optional package that is not installed.
    """
    if name not in registry:
        raise UnknownNameError(unknown(kind, name, registry))
    module_name, _, attribute = registry[name].partition(":")
    try:
        module = import_module(module_name)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        extra = EXTRA_OF_PACKAGE.get(package)
        if extra is None:
            raise
        raise MissingExtraError(
            f"{kind} '{name}' needs the package '{package}', which is not installed. "
            f"Install it: pip install 'fasterseg[{extra}]'"
        ) from error
    return getattr(module, attribute)


def unknown(kind: str, name: str, known: Mapping[str, object] | list[str]) -> str:
    """Message for a name that is not among the known ones, with the nearest one suggested."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1)
    hint = f" Did you mean '{close[0]}'?" if close else ""
    return f"unknown {kind} '{name}'; known: {', '.join(names)}.{hint}"
