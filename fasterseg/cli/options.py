"""What the programs share: options, notes on stderr, and the one edge where errors end."""

from __future__ import annotations

import contextlib
import enum
import errno
import io
import itertools
import json
import os
import sys
import traceback
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import typer

from fasterseg import interrupts
from fasterseg.errors import EXIT_CODES, FastersegError, OutputError, UsageError
from fasterseg.interrupts import INTERRUPTED

if TYPE_CHECKING:
    from fasterseg.types import Size

Level = Literal["info", "warning", "error"]


class LogFormat(enum.StrEnum):
    """How notes on stderr are written."""

    TEXT = "text"
    JSON = "json"


EPILOG: Final = "\b\nExit codes:\n" + "\n".join(
    f"  {code:>3}  {meaning}" for code, meaning in EXIT_CODES.items()
)
_CONTEXT: Final = {"help_option_names": ["-h", "--help"]}

# Typer carries its own copy of click from 0.26 on and used the package before; the base of what
# either raises for wrong options is reached through the name that both export.
_UsageProblem: Final[Any] = next(
    base for base in typer.BadParameter.__mro__ if base.__name__ == "ClickException"
)

_FULL: Final = (errno.ENOSPC, errno.EDQUOT)

_debug = False
_log_format = LogFormat.TEXT


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


def _set_log_format(context: typer.Context, value: LogFormat) -> LogFormat:
    global _log_format
    # The command line was read for it before all else; a file of settings was not.
    source = context.get_parameter_source("log_format")
    if source is not None and source.name == "DEFAULT_MAP":
        _log_format = value
    return value


DebugOption = Annotated[
    bool,
    typer.Option("--debug", help="Show tracebacks.", callback=_set_debug, is_eager=True),
]
LogFormatOption = Annotated[
    LogFormat,
    typer.Option(
        "--log-format",
        help="Notes on stderr: lines for people, or one JSON object a line (time, level, message).",
        callback=_set_log_format,
        is_eager=True,
    ),
]
ModelOption = Annotated[
    str,
    typer.Option(
        metavar="NAME|FILE",
        help="Name (`fasterseg models list`), folder with a model card, genotype .json, or .onnx.",
    ),
]
EngineOption = Annotated[
    str,
    typer.Option(
        metavar="NAME|FILE",
        help="auto (the fastest here whose labels are right, measured once), a backend "
        "(onnxruntime, openvino, tensorrt, tensorrt-rtx, torch), or an engine file (.onnx, "
        ".engine).",
    ),
]
PrecisionOption = Annotated[
    str,
    typer.Option(
        metavar="TYPE",
        help="auto (fp32 on a CPU, fp16 on a GPU), fp32, fp16, bf16 (openvino; torch on a GPU) "
        "or int8.",
    ),
]
DeviceOption = Annotated[
    str,
    typer.Option(metavar="DEVICE", help="auto, cpu or cuda. The one named, or an error."),
]
ThreadsOption = Annotated[
    int | None,
    typer.Option(min=1, metavar="N", help="CPU threads of the engine; default: all cores."),
]
TailOption = Annotated[
    str,
    typer.Option(
        metavar="WHERE",
        help="Upsampling and argmax on a CPU: native (our kernel, after a graph that ends at its "
        "logits), graph, or auto (native where the kernel is installed). The labels are the same.",
    ),
]
PinOption = Annotated[
    bool,
    typer.Option(
        "--pin/--no-pin",
        show_default=False,
        help="openvino: keep each thread of the engine on a core of its own.",
    ),
]
SizeOption = Annotated[
    str | None,
    typer.Option(metavar="HxW", help="Engine size in pixels, height first, such as 512x1024."),
]
PluginsOption = Annotated[
    str,
    typer.Option(
        metavar="auto|off",
        help="Our TensorRT plugins and CUDA kernels: auto where they are found, or off.",
    ),
]
NoBuildOption = Annotated[
    bool,
    typer.Option(
        "--no-build/--build",
        show_default=False,
        help="Never build an engine; exit code 4 if the cache has none.",
    ),
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


def note(message: str, level: Level = "info", **facts: object) -> None:
    """A line on stderr; stdout belongs to results. Nobody reading it is no reason to stop.

    Args:
        message: for people; a warning or an error is marked as such when it is shown.
        level: how much it matters.
        **facts: JSON values that machines get beside the message.
    """
    if for_machines():
        time = datetime.now(UTC).isoformat(timespec="milliseconds")
        line = json.dumps({"time": time, "level": level, "message": message, **facts})
    else:
        line = message if level == "info" else f"{level}: {message}"
    # A closed stderr is None, and print(file=None) would write to stdout.
    if sys.stderr is not None:
        with contextlib.suppress(OSError):
            print(line, file=sys.stderr, flush=True)


def for_machines() -> bool:
    """Whether notes are read by a program: tables and bars only make them longer."""
    return _log_format is LogFormat.JSON


def draws_progress() -> bool:
    """Whether stderr is a terminal with somebody before it, so that a line can be redrawn."""
    return not for_machines() and sys.stderr is not None and sys.stderr.isatty()


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
    interrupts.install()
    if isinstance(sys.stdout, io.TextIOWrapper):
        # File names are bytes: those that are no text come out as they went in.
        is_utf8 = sys.stdout.encoding.lower().replace("-", "") == "utf8"
        sys.stdout.reconfigure(errors="surrogateescape" if is_utf8 else "backslashreplace")
    try:
        code = exit_code_of(app)
    except KeyboardInterrupt:
        # It came while an error was being told.
        code = _interrupted()
    interrupts.ignore()
    sys.exit(code)


def exit_code_of(app: typer.Typer, arguments: list[str] | None = None) -> int:
    """Run a program; return its exit code. The only place where errors end."""
    global _debug, _log_format
    _debug = False
    _log_format = _log_format_in(sys.argv[1:] if arguments is None else arguments)
    try:
        result = app(args=arguments, standalone_mode=False)
        if sys.stdout is not None:
            # Now, where a failure can still be told.
            sys.stdout.flush()
    except FastersegError as error:
        return _fail(str(error), error.exit_code)
    except _UsageProblem as error:
        return _refuse(error)
    except (KeyboardInterrupt, typer.Abort):
        return _interrupted()
    except BrokenPipeError:
        # The reader of our output went away (`... | head`): nothing is left to say to it.
        _drop_stdout()
        return 1
    except Exception as error:  # noqa: BLE001 - the edge: an unforeseen fault, told as one
        return _fault(error)
    # Typer makes this code of an interruption, without a word.
    if result == INTERRUPTED:
        return _interrupted()
    return result if isinstance(result, int) else 0


def _log_format_in(arguments: list[str]) -> LogFormat:
    """The format asked for, read by hand: what is wrong with other options is told in it too."""
    option = "--log-format"
    words = [
        word
        for argument in arguments
        for word in (argument.split("=", 1) if argument.startswith(f"{option}=") else [argument])
    ]
    values = [value for word, value in itertools.pairwise(words) if word == option]
    return LogFormat.JSON if values[-1:] == [LogFormat.JSON] else LogFormat.TEXT


def _fail(message: str, exit_code: int) -> int:
    """Tell the error that is being handled."""
    facts: dict[str, object] = {"exit_code": exit_code}
    if _debug and for_machines():
        facts["traceback"] = traceback.format_exc()
    elif _debug:
        note(traceback.format_exc().rstrip())
    note(message, "error", **facts)
    return exit_code


def _fault(error: Exception) -> int:
    """Tell an error that nobody foresaw, or what is one in disguise."""
    if interrupts.came():
        # Libraries that are being imported turn the interruption into errors of their own.
        return _interrupted()
    if isinstance(error, OSError) and error.errno in _FULL:
        _drop_stdout()
        return _fail(f"{error.strerror}. Free some, or write elsewhere", OutputError.exit_code)
    return _fail(
        f"{type(error).__name__}: {error}. This is a fault of fasterseg, not of your input; "
        "run again with --debug and report the traceback",
        exit_code=1,
    )


def _interrupted() -> int:
    note("interrupted; what was written is complete up to here", exit_code=INTERRUPTED)
    return INTERRUPTED


def _refuse(error: Any) -> int:
    """What is wrong with the options, with the usage line where people read it."""
    if for_machines():
        note(error.format_message(), "error", exit_code=UsageError.exit_code)
    else:
        with contextlib.suppress(OSError):
            error.show()
    return UsageError.exit_code


def _drop_stdout() -> None:
    """Let what is still buffered go nowhere, instead of failing again when Python ends."""
    with contextlib.suppress(AttributeError, OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
