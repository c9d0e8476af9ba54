"""The types that cross layers: sizes, frames, times, devices. Sizes are (height, width) everywhere.

Standard library only at run time, so that `fasterseg.arch` can be used without NumPy.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

from fasterseg.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Precision = Literal["fp32", "fp16", "bf16", "int8"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)

_SIZE = re.compile(r"\s*(\d{1,9})\s*[xX]\s*(\d{1,9})\s*")


class Size(NamedTuple):
    """Height and width in pixels; prints and parses as `HxW`."""

    height: int
    width: int

    def __str__(self) -> str:
        return f"{self.height}x{self.width}"

    @property
    def pixels(self) -> int:
        """Number of pixels."""
        return self.height * self.width

    @classmethod
    def parse(cls, text: str) -> Size:
        """Read `"512x1024"` (height x width).

        Raises:
            UsageError: not two positive integers joined by an x.
        """
        match = _SIZE.fullmatch(text)
        if match is None or 0 in (int(match[1]), int(match[2])):
            raise UsageError(
                f"size '{text}' is not HEIGHTxWIDTH in pixels, for example 512x1024 (height first)"
            )
        return cls(int(match[1]), int(match[2]))


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One decoded picture.

    Attributes:
        image: (H, W, 3) uint8, BGR, values in [0, 255].
        index: position in the source, counted from 0 before any stride.
        timestamp_s: seconds since the source's first frame.
        name: file name of the picture where the source is a set of files, else empty.
        decode_ms: milliseconds spent reading and decoding this frame.
        arrived_s: `time.monotonic()` when it came, or was due, from a live source; None for
            frames that wait to be read.
    """

    image: NDArray[np.uint8]
    index: int
    timestamp_s: float
    name: str = ""
    decode_ms: float = 0.0
    arrived_s: float | None = None

    @property
    def size(self) -> Size:
        """Height and width of `image`."""
        return Size(self.image.shape[0], self.image.shape[1])


@dataclass(slots=True)
class StageTimes:
    """Milliseconds one frame spent in each stage; these are the only stage names."""

    decode_ms: float = 0.0
    prepare_ms: float = 0.0
    engine_ms: float = 0.0
    finish_ms: float = 0.0
    write_ms: float = 0.0


STAGES: tuple[str, ...] = ("decode", "prepare", "engine", "finish", "write")


@dataclass(frozen=True, slots=True)
class LatencyStats:
    """Summary of latency samples, in milliseconds. Percentiles are linearly interpolated."""

    count: int
    mean_ms: float
    std_ms: float
    min_ms: float
    p50_ms: float
    p90_ms: float
    p95_ms: float
    p99_ms: float

    @classmethod
    def of(cls, samples_ms: Sequence[float]) -> LatencyStats:
        """Summarise samples in milliseconds.

        Raises:
            ValueError: there are no samples.
        """
        if not samples_ms:
            raise ValueError("no latency samples")
        ordered = sorted(samples_ms)
        mean = math.fsum(ordered) / len(ordered)
        variance = math.fsum((s - mean) ** 2 for s in ordered) / len(ordered)

        def percentile(share: float) -> float:
            position = share * (len(ordered) - 1)
            low = math.floor(position)
            high = min(low + 1, len(ordered) - 1)
            return ordered[low] + (ordered[high] - ordered[low]) * (position - low)

        return cls(
            count=len(ordered),
            mean_ms=mean,
            std_ms=math.sqrt(variance),
            min_ms=ordered[0],
            p50_ms=percentile(0.50),
            p90_ms=percentile(0.90),
            p95_ms=percentile(0.95),
            p99_ms=percentile(0.99),
        )

    @property
    def cov(self) -> float:
        """Coefficient of variation: standard deviation over mean (0 for a mean of 0)."""
        return self.std_ms / self.mean_ms if self.mean_ms else 0.0

    def to_json(self) -> dict[str, float]:
        """The fields, rounded to a tenth of a microsecond."""
        return {key: round(value, 4) for key, value in asdict(self).items()}


@dataclass(frozen=True, slots=True)
class DeviceInfo:
    """What a figure was measured on; unknown fields are None, never guessed.

    Attributes:
        id: short folder name under `benchmarks/`, such as "h200" or "epyc-9v74-2t".
        name: name as the driver or the kernel gives it.
        arch: instruction set ("x86_64", "aarch64") or compute capability ("sm_90").
        driver: GPU driver version, None on a CPU.
        cuda: CUDA version of the runtime, None on a CPU.
        os: operating system and kernel release.
        runtimes: package -> version of everything that took part.
        sm_clock_mhz: clock while measured, MHz.
        power_mode: name of the power mode or CPU governor.
        clocks_locked: whether clocks were pinned.
        details: further facts (CPU flags used, threads, load average, memory).
    """

    id: str
    name: str
    arch: str
    driver: str | None
    cuda: str | None
    os: str
    runtimes: Mapping[str, str] = field(default_factory=dict)
    sm_clock_mhz: int | None = None
    power_mode: str | None = None
    clocks_locked: bool | None = None
    details: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The fields as plain JSON values."""
        return asdict(self)
