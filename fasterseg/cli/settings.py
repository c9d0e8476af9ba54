"""`--config` and `--print-config`: options from a TOML file, and the options as such a file.

A program takes both options, tells `settings_text` where the second is given, and needs to know no
more: what the file says reaches it like what is typed.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from fasterseg.config import read_toml
from fasterseg.errors import ConfigError
from fasterseg.registry import unknown

_OWN: Final = ("config", "print-config")

# What names a secret may be shown: `user:${NAME}@` of a URL, and a query of nothing but names.
_NAME: Final = r"\$\{\w+\}"
_NAMED_USER: Final = re.compile(rf"(?<=://)(?:(?:[\w.%-]*|{_NAME}):)?{_NAME}@")
_NAMED_QUERY: Final = re.compile(rf"\?[\w.-]+={_NAME}(?:&[\w.-]+={_NAME})*(?=\s|$)")
_PIPELINE_SECRET: Final = re.compile(
    rf"(?i)(?:pw|pass\w*|(?:user|proxy)-id|token|key)\s*=\s*(?!\s|\"?{_NAME}\"?(?:\s|$))"
)

_SECRET: Final = "what may be secret; write its name, ${NAME}, and it is printed"


def _read_settings(context: typer.Context, path: Path | None) -> Path | None:
    """Let the file say what the command line does not."""
    if path is not None:
        context.default_map = {**(context.default_map or {}), **_values(context, path)}
    return path


ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        help="Take options from a TOML file too, each by its name (max-fps = 10, legend = true, "
        'also = ["rear.mp4"]), with input and output. What is typed goes before it. Its paths are '
        "those of the working directory, as if they were typed.",
        callback=_read_settings,
        # Before all others, which look there for what is not typed.
        is_eager=True,
    ),
]
PrintConfigOption = Annotated[
    bool,
    typer.Option(
        "--print-config",
        help="Print the options as a file for --config, with defaults as comments and passwords "
        "left out, and end.",
    ),
]


def _parameters(context: typer.Context) -> dict[str, Any]:
    """Key in the file -> the option or argument of that name."""
    found = {}
    for parameter in context.command.params:
        names = [name[2:] for name in parameter.opts if name.startswith("--")]
        found[names[0] if names else str(parameter.metavar).lower()] = parameter
    return {key: parameter for key, parameter in found.items() if key not in _OWN}


def _values(context: typer.Context, path: Path) -> dict[str, Any]:
    """Parameter -> value as the command line would have given it, checked by the parameter.

    Raises:
        ConfigError: the file cannot be read, or has an unknown key or a wrong value.
    """
    parameters = _parameters(context)
    values: dict[str, Any] = {}
    for written, value in _read(context, path).items():
        key = written.replace("_", "-")
        if key not in parameters:
            raise ConfigError(f"{path}: {unknown('key', key, parameters)}")
        parameter = parameters[key]
        if parameter.name in values:
            raise ConfigError(f"{path}: {key} is there twice, with - and with _; leave one")
        try:
            values[parameter.name] = _as_typed(parameter, value)
            parameter.process_value(context, values[parameter.name])
        except typer.BadParameter as error:
            raise ConfigError(f"{path}: {key}: {error.message}") from error
        except ValueError as error:
            raise ConfigError(f"{path}: {key}: {error}") from error
    return values


def _read(context: typer.Context, path: Path) -> dict[str, Any]:
    try:
        return read_toml(path)
    except ConfigError as error:
        if not isinstance(error.__cause__, FileNotFoundError):
            raise
        begin = f"{context.command_path} --print-config > {path}"
        raise ConfigError(f"{error}. Write one to begin with: {begin}") from error


def _as_typed(parameter: Any, value: Any) -> Any:
    """What the command line gives for it: a boolean for a flag, else text, or several texts."""
    if getattr(parameter, "is_flag", False):
        if not isinstance(value, bool):
            raise ValueError(f"expected true or false, found {_shown(value)}")
        return value
    if getattr(parameter, "multiple", False):
        return [_text(item) for item in (value if isinstance(value, list) else [value])]
    return _text(value)


def _text(value: Any) -> str:
    if isinstance(value, bool | list | dict):
        raise ValueError(f"expected a text or a number, found {_shown(value)}")
    return str(value)


def _shown(value: Any) -> str:
    """A value in an error: what it is, and no more where it may be long or secret."""
    kinds = {bool: "true or false", list: "a list", dict: "a table", str: "a text"}
    return kinds.get(type(value), str(value))


def settings_text(context: typer.Context) -> str:
    """The options in force as TOML that `--config` takes; those nobody gave are comments."""
    lines = [f"# For {context.command_path} --config. Comments are defaults, or were left out."]
    for key, parameter in _parameters(context).items():
        value = context.params[parameter.name]
        source = context.get_parameter_source(parameter.name)
        given = source is not None and source.name != "DEFAULT"
        lines.append(_line(key, value, parameter, given=given))
    return "\n".join(lines)


def _line(key: str, value: Any, parameter: Any, *, given: bool) -> str:
    if value is None or (isinstance(value, list | tuple) and not value):
        return f"# {key} = {parameter.metavar}"
    shown, left_out = _without_secrets(value)
    line = f"{key} = {_toml(shown)}"
    if left_out:
        return f"# {line}  # left out: {left_out}"
    return line if given else f"# {line}"


def _without_secrets(value: Any) -> tuple[Any, str]:
    """A value as it may be printed, and why that is not all of it."""
    from fasterseg.stream.sources import GSTREAMER, redacted, redacted_text

    if isinstance(value, list | tuple):
        pairs = [_without_secrets(item) for item in value]
        return [shown for shown, _ in pairs], next((why for _, why in pairs if why), "")
    if not isinstance(value, str):
        return value, ""
    text = value.encode(errors="replace").decode()
    if text != value:
        return text, "a name that is no text cannot stand in TOML"
    unnamed = _NAMED_QUERY.sub("", _NAMED_USER.sub("", value))
    is_pipeline = value.startswith(GSTREAMER)
    if is_pipeline and _PIPELINE_SECRET.search(unnamed):
        return GSTREAMER, _SECRET
    redact = redacted_text if is_pipeline else redacted
    if redact(unnamed) != unnamed:
        return redact(value), _SECRET
    return value, ""


def _toml(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, str):
        # The one sign that JSON leaves as it is and TOML does not take.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return json.dumps(value) if isinstance(value, bool | int) else repr(value)
