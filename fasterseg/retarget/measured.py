"""`Measurements`: whole networks timed as they would be deployed, kept as they come."""

from __future__ import annotations

import json
import random
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fasterseg.arch.genotype import Genotype
from fasterseg.arch.plan import plan
from fasterseg.bench.begin import check_continues, request_of
from fasterseg.bench.nominal import is_nominal, same_times
from fasterseg.bench.ops import Clocks, OnProgress, Progress
from fasterseg.bench.quiet import TOLERANCE as QUIET
from fasterseg.bench.quiet import Quiet, quiet_for
from fasterseg.bench.tables import ON_DEVICE, Statistic, TableFile, Times
from fasterseg.bench.timing import TimingProtocol
from fasterseg.bench.whole import GROUP, OpenNet, deployed, time_together
from fasterseg.cache import write_atomic
from fasterseg.config import from_mapping, parse_json
from fasterseg.errors import ConfigError, UsageError
from fasterseg.search.window import EQUAL

PASSES: Final = 2
"""Independent measurements of each network, each in another order and company."""

TOLERANCE: Final = EQUAL
"""Share that measured latencies may differ by and still count as equal."""


@dataclass(frozen=True, slots=True)
class Measured:
    """A whole network that was timed.

    Attributes:
        genotype: the network.
        predicted_ms: price of the network under the table; None where the table lacks rows of a
            network that is not of its space.
        times: one entry for each pass.
        on: what it was timed on, and with; see `conditions_of`.
    """

    genotype: Genotype
    predicted_ms: float | None
    times: tuple[Mapping[str, float], ...]
    on: Mapping[str, Any]

    def ms(self, statistic: Statistic) -> float:
        """Latency by a statistic, ms: the mean over the passes that nothing disturbed.

        Where all were disturbed, it is the least disturbed one's.
        """
        least = min(map(_slowdown, self.times))
        counted = [times for times in self.times if _slowdown(times) <= max(least, QUIET)]
        return statistics.fmean(times[f"{statistic}_ms"] for times in counted)

    def to_json(self) -> dict[str, Any]:
        """The fields as plain JSON values."""
        return {
            "predicted_ms": self.predicted_ms,
            "times": [dict(times) for times in self.times],
            "on": dict(self.on),
            "genotype": self.genotype.to_json(),
        }


def _slowdown(times: Times) -> float:
    """Of the machine during a pass; 0 where it was not watched."""
    return times.get("slowdown", 0.0)


def conditions_of(file: TableFile) -> dict[str, Any]:
    """What the figures of a table, and of networks measured beside it, hold for."""
    return {
        "device": file.device.id,
        "backend": file.backend,
        "version": file.device.runtimes.get(file.backend),
        "precision": file.precision,
        "size": str(file.size),
        "batch": file.batch,
        "threads": file.conditions.get("threads"),
    }


def check_table(file: TableFile, **wanted: Any) -> None:
    """Refuse a table that is not of this machine, or not of what it is wanted for.

    A nominal table is of no machine, and is taken on every one.

    Args:
        file: the table.
        **wanted: see `LatencyTable.check` (`size`, `precision`, `backend`, `threads`).

    Raises:
        UsageError: device, version of the engine, or one of the wanted things differs.
        DeviceUnavailableError: the table's device is not there.
    """
    file.table().check(file.device.id, **wanted)
    if not is_nominal(file):
        request = request_of(file).resolved()
        check_continues(file, request.detect(), request)


class Measurements:
    """Measures networks with the engine, precision, size and threads of a table.

    What is there is not measured again; every few networks are stored before the next are begun,
    so a run that is killed loses little, and the same call goes on. Of a nominal table the price
    stands in for a time, and nothing is run.

    Args:
        file: the table, of this machine; see `check_table`.
        path: where measurements are kept; None keeps them in memory only.
        open_net: opens a network as it would be deployed; None does so with the table's engine.
        frames: one batch, uint8, (N, H, W, 3), BGR, that goes with `open_net`.
        protocol: how much to run of each network in a pass; None: see `whole.protocol_for`.
        clocks: what times are read from.
        on_progress: called after every few networks.

    Attributes:
        known: digest -> network, as far as measured; of other searches in the same folder, too.

    Raises:
        ConfigError: the file at `path` holds something else.
        UsageError: it holds measurements under other conditions.
    """

    def __init__(
        self,
        file: TableFile,
        path: Path | None = None,
        *,
        open_net: OpenNet | None = None,
        frames: NDArray[np.uint8] | None = None,
        protocol: TimingProtocol | None = None,
        clocks: Clocks | None = None,
        on_progress: OnProgress = lambda _: None,
    ) -> None:
        self._file = file
        self._table = file.table()
        self._path = path
        self._open_net, self._frames = open_net, frames
        self._protocol = protocol
        self._clocks = clocks or Clocks()
        self._on_progress = on_progress
        self._quiet: Quiet | None = None
        self.known: dict[str, Measured] = {}
        if path is not None and path.exists():
            self.known = _load(path, conditions_of(file))

    def __call__(self, genotypes: Sequence[Genotype], passes: int = PASSES) -> dict[str, Measured]:
        """Measure networks, those that are known as often as is still missing.

        Args:
            genotypes: in any order.
            passes: independent measurements that each is to have.

        Returns:
            Digest -> network, for all that were asked for.

        Raises:
            UsageError: the engine finishes elsewhere than the table's rows did.
            EngineError: a network cannot be opened.
            OutputError: the file cannot be written.
        """
        wanted = {genotype.digest(): genotype for genotype in genotypes}
        groups = [group for number in range(passes) for group in self._groups(wanted, number)]
        total = left = sum(map(len, groups))
        begin = self._clocks.wall()
        for group in groups:
            times = self._timed([wanted[digest] for digest in group])
            for digest, one in zip(group, times, strict=True):
                self._add(digest, wanted[digest], one)
            self._save()
            left -= len(group)
            elapsed_s = (self._clocks.wall() - begin) / 1e9
            self._on_progress(Progress(total - left, left, f"{len(group)} networks", elapsed_s))
        return {digest: self.known[digest] for digest in wanted}

    def _groups(self, wanted: Mapping[str, Genotype], number: int) -> list[list[str]]:
        """Digests that lack a pass, in an order of its own, a few at a time."""
        todo = sorted(
            digest
            for digest in wanted
            if digest not in self.known or len(self.known[digest].times) <= number
        )
        random.Random(f"pass {number}").shuffle(todo)
        return [todo[start : start + GROUP] for start in range(0, len(todo), GROUP)]

    def _timed(self, nets: Sequence[Genotype]) -> list[Times]:
        if is_nominal(self._file):
            return [same_times(self._price(genotype)) for genotype in nets]
        if self._open_net is None or self._frames is None:
            self._open_net, self._frames = deployed(self._file)
            self._quiet = quiet_for(self._file)
        return time_together(
            self._file,
            nets,
            self._open_net,
            self._frames,
            protocol=self._protocol,
            clocks=self._clocks,
            quiet=self._quiet,
        )

    def _add(self, digest: str, genotype: Genotype, times: Times) -> None:
        before = self.known[digest].times if digest in self.known else ()
        on = conditions_of(self._file)
        self.known[digest] = Measured(genotype, self._predicted(genotype), (*before, times), on)

    def _predicted(self, genotype: Genotype) -> float | None:
        if self._table.missing(node.spec for node in plan(genotype, self._file.size).nodes):
            return None
        return self._price(genotype)

    def _price(self, genotype: Genotype) -> float:
        return self._table.price(plan(genotype, self._file.size)).ms

    def _save(self) -> None:
        if self._path is None:
            return
        entries = {digest: one.to_json() for digest, one in sorted(self.known.items())}
        lines = ",\n".join(f" {json.dumps(k)}: {json.dumps(v)}" for k, v in entries.items())
        write_atomic(self._path, f"{{\n{lines}\n}}\n".encode())


def measure(
    genotypes: Sequence[Genotype], file: TableFile, path: Path | None = None, **options: Any
) -> dict[str, Measured]:
    """Measure some networks; see `Measurements`, whose options these are."""
    return Measurements(file, path, **options)(genotypes)


def within_tolerance(
    measured: Iterable[Measured], ms: float, statistic: Statistic, tolerance: float = TOLERANCE
) -> list[Measured]:
    """The networks whose measured latency differs from `ms` by no more than a share of it."""
    return [one for one in measured if abs(one.ms(statistic) - ms) <= tolerance * ms]


def load_measured(path: Path) -> dict[str, Measured]:
    """Read what `Measurements` stored: digest -> network.

    Raises:
        ConfigError: the file cannot be read, or holds something else.
    """
    try:
        data = parse_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise ConfigError(f"{path} is not JSON: {error}. Remove it and measure again") from error
    if not isinstance(data, dict):
        raise ConfigError(f"{path} holds no measured networks; remove it and measure again")
    found = {key: from_mapping(one, Measured, f"{path}: {key[:12]}") for key, one in data.items()}
    for digest, one in found.items():
        names = {f"{statistic}_ms" for statistic in ON_DEVICE}
        if digest != one.genotype.digest() or any(names - times.keys() for times in one.times):
            raise ConfigError(f"{path}: {digest[:12]} was edited; remove it and measure again")
    return found


def _load(path: Path, on: Mapping[str, Any]) -> dict[str, Measured]:
    found = load_measured(path)
    for one in found.values():
        changed = [
            f"{key} {one.on.get(key)}, not {on[key]}" for key in on if one.on.get(key) != on[key]
        ]
        if changed:
            raise UsageError(
                f"{path} holds networks measured with {', '.join(changed)}; figures of the two do "
                "not compare. Choose another folder, or remove the file and measure again"
            )
    return found


MeasureMore = Callable[[Sequence[Genotype]], Mapping[str, Measured]]
"""Measures further networks; a `Measurements` is one."""
