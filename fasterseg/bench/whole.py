"""Whole networks, opened as they are deployed and timed in turn."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from fasterseg.arch.genotype import Genotype
from fasterseg.bench import engines, snippets
from fasterseg.bench.interleave import TURN_RUNS, interleave
from fasterseg.bench.ops import Clocks, times_of, watch
from fasterseg.bench.quiet import Quiet
from fasterseg.bench.tables import DEVICE_CLOCK, TableFile, Times
from fasterseg.bench.timing import DEVICE_NET, CallLane, DeviceLane, Lane, TimingProtocol
from fasterseg.errors import UsageError
from fasterseg.runtime.base import DeviceTimed

GROUP: Final = 4
"""Networks that are open at once and timed in turn."""

NET: Final = TimingProtocol("net", warmup_runs=1, min_runs=9, min_s=0.3)
"""Whole networks: long runs, and each is measured again in another pass."""


DEVICE_TURN: Final = 50
"""Runs of a network that is timed by its device, before it is the next one's turn: what is begun
with an idle device, and captured anew, has to be a small part of them."""


class Net(Protocol):
    """A whole network ready to run on a bound batch; see `bench.scopes.BoundEngine`.

    One on a GPU is `DeviceTimed` as well.
    """

    tail: str

    def bind(self, frames: NDArray[np.uint8]) -> None:
        """Put one batch into the input buffer."""
        ...

    def run_bound(self) -> None:
        """Frames in the input buffer to labels in the output buffer."""
        ...

    def close(self) -> None:
        """Release it."""
        ...


OpenNet = Callable[[Genotype], Net]
"""Opens a whole network as it would be deployed."""


def deployed(file: TableFile) -> tuple[OpenNet, NDArray[np.uint8]]:
    """What opens networks as the rows of a table were timed, and one batch for them."""
    options = file.emit_options()
    device, threads = file.conditions["device"], file.conditions["threads"]
    opener = snippets.network_opener(
        file.backend, device, threads, file.size, options, file.precision
    )
    return opener, engines.render_frames(file.size, file.batch, 1)[0]


def protocol_for(file: TableFile) -> TimingProtocol:
    """How much to run of each network, by the clock of a table's rows."""
    return DEVICE_NET if file.conditions.get("clock") == DEVICE_CLOCK else NET


def time_together(
    file: TableFile,
    nets: Sequence[Genotype],
    open_net: OpenNet,
    frames: NDArray[np.uint8],
    *,
    protocol: TimingProtocol | None = None,
    clocks: Clocks | None = None,
    quiet: Quiet | None = None,
) -> list[Times]:
    """Open a few networks at once, time them in turn, and close them; the table is not changed.

    Args:
        file: says where networks have to finish.
        nets: at most as many as fit into memory.
        open_net: opens one in the table's backend, as it would be deployed.
        frames: one batch, uint8, (N, H, W, 3), BGR.
        protocol: how much to run of each; None: see `protocol_for`.
        clocks: what times are read from.
        quiet: repeats all of them where the machine was disturbed; None takes them as they come.

    Returns:
        Every statistic of each, and `slowdown` of the machine meanwhile where that was watched.

    Raises:
        UsageError: the networks finish elsewhere than the row of the output did.
        EngineError: one cannot be opened.
    """
    clocks, wanted = clocks or Clocks(), protocol or protocol_for(file)
    with contextlib.ExitStack() as stack:
        lanes = []
        for genotype in nets:
            net = stack.enter_context(contextlib.closing(open_net(genotype)))
            _check_tail(file, net)
            net.bind(frames)
            lanes.append(_lane(net, clocks))
        on_device = any(isinstance(lane, DeviceLane) for lane in lanes)
        turn = DEVICE_TURN if on_device else TURN_RUNS
        turns, watched = watch(quiet, lambda: interleave(lanes, wanted, turn=turn))
        return [{**times_of(one.samples), **watched} for one in turns]


def _lane(net: Net, clocks: Clocks) -> Lane:
    if isinstance(net, DeviceTimed):
        return DeviceLane(net)
    return CallLane(lambda _: net.run_bound(), clock=clocks.wall, cpu_clock=clocks.cpu)


def _check_tail(file: TableFile, net: Net) -> None:
    tail = file.conditions.get("tail")
    if net.tail != tail:
        asked = str(tail).partition("-")[0]
        raise UsageError(
            f"{file.path} has the last step timed where {tail} does it, and networks finish in "
            f"{net.tail}; ask for --tail {asked}, or measure the table anew: --overwrite"
        )
