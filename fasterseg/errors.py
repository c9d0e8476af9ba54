"""The exceptions of fasterseg: one base class, one exit code each, every message with its remedy.

Exit codes (the only list; shown by every `--help`):

====  ==========================================================================
0     done (a truncated input too: with a warning)
1     failed while running (output not writable, disk full)
2     wrong usage (unknown option or value, output exists)
3     the source cannot be opened, holds no images, or was lost for good
4     the engine is missing, broken or does not match; the device is not there
5     a parity or accuracy gate failed
6     a performance gate failed
130   interrupted; files were closed properly
====  ==========================================================================
"""

from __future__ import annotations

from typing import ClassVar, Final

EXIT_CODES: Final[dict[int, str]] = {
    0: "done (truncated input too, with a warning)",
    1: "failed while running: output not writable, disk full",
    2: "wrong usage: unknown option or value, output exists",
    3: "source cannot be opened, has no images, or was lost for good",
    4: "engine missing, broken or not matching; device unavailable",
    5: "parity or accuracy gate failed",
    6: "performance gate failed",
    130: "interrupted; files were closed properly",
}
"""Exit code of the command line programs -> what it means."""


class FastersegError(Exception):
    """Base of everything a user can mend. The message names value, expectation and remedy."""

    exit_code: ClassVar[int] = 1


class UsageError(FastersegError):
    """An option or argument that cannot be right, whatever the machine."""

    exit_code = 2


class OutputExistsError(UsageError):
    """The output is already there and `--overwrite` was not given."""


class ConfigError(UsageError):
    """A configuration, genotype, recipe or table file that does not hold what it must."""


class UnknownNameError(UsageError):
    """A name that no registry knows; the message lists the known ones."""


class MissingLatencyError(UsageError):
    """A latency table without the row asked for; the message names the measuring command."""


class OutputError(FastersegError):
    """The output cannot be written (permissions, full disk, broken encoder)."""

    exit_code = 1


class SourceError(FastersegError):
    """The input cannot be opened or read, or has nothing in it."""

    exit_code = 3


class EngineError(FastersegError):
    """An engine that is missing, broken, or not what was asked for."""

    exit_code = 4


class EngineMismatchError(EngineError):
    """An engine file that does not fit model, size, precision or runtime; names the field."""


class DeviceUnavailableError(EngineError):
    """The device asked for is not there, or the runtime gave another one."""


class DeviceLostError(DeviceUnavailableError):
    """The device failed in mid-run: what was computed is lost, and this process cannot use it."""


class MissingExtraError(EngineError):
    """An optional package is not installed; the message is its install line."""


class UnsupportedError(EngineError):
    """A network, precision or GPU that a runtime does not take; the message says what it does."""


class BuildError(EngineError):
    """A runtime could not build an engine; the message ends with the runtime's own words."""


class WeightsError(EngineError):
    """Weights that do not fit the network: names what is missing, surplus or misshapen."""


class ParityError(FastersegError):
    """Two engines disagree by more than the threshold."""

    exit_code = 5


class PerformanceError(FastersegError):
    """A measured figure missed its gate."""

    exit_code = 6
