"""What the programs share: options, notes on stderr, and the one edge where errors end."""

from __future__ import annotations

import os
import sys
import traceback
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from fasterseg.errors import EXIT_CODES, FastersegError, UsageError

if TYPE_CHECKING:
    from fasterseg.types import Size

INTERRUPTED: Final = 130
EPILOG: Final = "\b\nExit codes:\n" + "\n".join(
    f"  {code:>3}  {meaning}" for code, meaning in EXIT_CODES.items()
)
_CONTEXT: Final = {"help_option_names": ["-h", "--help"]}

# Typer carries its own copy of click from 0.26 on and used the package before; the base of what
# either raises for wrong options is reached through the name that both export.
_UsageProblem: Final[Any] = next(
    base for base in typer.BadParameter.__mro__ if base.__name__ == "ClickException"
)

_debug = False


def new_app(help_text: str) -> typer.Typer:
    """A Typer application with the shared settings."""
    return typer.Typer(
        help=help_text,
        add_completion=False,
        no_args_is_help=True,
        context_settings=dict(_CONTEXT),
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )


def _set_debug(value: bool) -> bool:
    global _debug
    _debug = _debug or value
    return value


DebugOption = Annotated[
    bool,
    typer.Option("--debug", help="Show tracebacks.", callback=_set_debug, is_eager=True),
]
ModelOption = Annotated[
    str,
    typer.Option(
        metavar="NAME|FILE",
        help="Name (`fasterseg models list`), genotype .json with its weights beside it, or .onnx.",
    ),
]
EngineOption = Annotated[
    str,
    typer.Option(
        metavar="NAME|FILE",
        help="auto, a backend (onnxruntime, torch), or an engine file (.onnx).",
    ),
]
PrecisionOption = Annotated[
    str,
    typer.Option(metavar="TYPE", help="auto (fp32 on a CPU, fp16 on a GPU), fp32 or fp16."),
]
DeviceOption = Annotated[
    str,
    typer.Option(metavar="DEVICE", help="auto, cpu or cuda. The one named, or an error."),
]
ThreadsOption = Annotated[
    int | None,
    typer.Option(min=1, metavar="N", help="CPU threads of the engine; default: all cores."),
]
SizeOption = Annotated[
    str | None,
    typer.Option(metavar="HxW", help="Engine size in pixels, height first, such as 512x1024."),
]
JsonOption = Annotated[
    str | None, typer.Option("--json", metavar="FILE", help="Write the result as JSON; - = stdout.")
]


def parse_size(text: str | None) -> Size | None:
    """`HxW` or nothing.

    Raises:
        UsageError: it is neither.
    """
    from fasterseg.types import Size

    return Size.parse(text) if text else None


def note(message: str) -> None:
    """A line for people, on stderr; stdout belongs to results."""
    print(message, file=sys.stderr, flush=True)


def write_json(target: str, text: str) -> None:
    """Write a JSON text to a file, or to stdout for `-`.

    Raises:
        OutputError: the file cannot be written.
    """
    from pathlib import Path

    from fasterseg.cache import write_atomic

    if target == "-":
        print(text)
    else:
        write_atomic(Path(target), (text + "\n").encode())


def run_app(app: typer.Typer) -> None:
    """Run a program and end it with the right exit code and a message instead of a traceback."""
    sys.exit(exit_code_of(app))


def exit_code_of(app: typer.Typer, arguments: list[str] | None = None) -> int:
    """Run a program; return its exit code. The only place where errors end."""
    global _debug
    _debug = False
    try:
        result = app(args=arguments, standalone_mode=False)
    except FastersegError as error:
        if _debug:
            traceback.print_exc()
        note(f"error: {error}")
        return error.exit_code
    except _UsageProblem as error:
        error.show()
        return UsageError.exit_code
    except (KeyboardInterrupt, typer.Abort):
        note("interrupted; what was written is complete up to here")
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of our output went away (`... | head`): nothing is left to say to it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:  # noqa: BLE001 - the edge: an unforeseen fault, told as one
        if _debug:
            traceback.print_exc()
        note(
            f"error: {type(error).__name__}: {error}. This is a fault of fasterseg, not of your "
            "input; run again with --debug and report the traceback"
        )
        return 1
    return result if isinstance(result, int) else 0
