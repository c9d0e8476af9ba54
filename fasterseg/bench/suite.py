"""What a run of `fasterseg-bench` is to measure, and how it gets at it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

from fasterseg.bench.cells import EndToEnd
from fasterseg.bench.peers import BACKEND, Peer
from fasterseg.bench.streams import Share, SharedEngine
from fasterseg.bench.timing import FULL, TimingProtocol
from fasterseg.errors import UsageError
from fasterseg.runtime.base import ENGINES, Engine
from fasterseg.runtime.tail import CHOOSING
from fasterseg.types import Precision, Size


@dataclass(frozen=True, slots=True)
class Candidate:
    """One thing to measure: an engine as it is asked for.

    Attributes:
        engine: backend or engine file.
        precision: "auto" or a precision.
        device: "auto", "cpu" or "cuda".
        size: height and width of the frames.
        batch: frames per call.
        streams: calls at the same time.
        peer: name of a foreign network; None for the run's model.
        tail: "auto", "graph" or "native": where upsampling and argmax are done on a CPU.
        share: how the streams share one engine; None: each has its own.
    """

    engine: str
    precision: str
    device: str
    size: Size
    batch: int = 1
    streams: int = 1
    peer: str | None = None
    tail: str = "auto"
    share: Share | None = None

    @property
    def engine_batch(self) -> int:
        """Frames per call of the engine itself."""
        return self.batch if self.share is None else self.share.max_batch

    @property
    def is_single(self) -> bool:
        """Whether it is one frame a call, one call at a time, on an engine of its own."""
        return (self.batch, self.streams, self.share) == (1, 1, None)

    def __str__(self) -> str:
        name = f"{self.peer} ({self.engine})" if self.peer else f"{self.engine} {self.precision}"
        more = f", tail {self.tail}" if self.tail != "auto" else ""
        more += f", batch {self.batch}" if self.batch > 1 else ""
        more += f", {self.streams} streams" if self.streams > 1 else ""
        more += ", one engine" if self.share is not None else ""
        return f"{name} {self.size}{more}"


class Graphs(Protocol):
    """Gives the ONNX of a candidate."""

    def __call__(
        self, candidate: Candidate, precision: Precision, stage: Literal["labels", "logits8"]
    ) -> bytes | None:
        """Its graph in the precision obtained, or None for what no ONNX Runtime runs."""
        ...


class Sharer(Protocol):
    """Lets several streams share an engine."""

    def __call__(self, engine: Engine, share: Share) -> SharedEngine:
        """Take an engine; the suite closes what it gets, and then the engine."""
        ...


@dataclass(frozen=True, slots=True)
class Access:
    """What a suite needs of code that `bench` does not see.

    Attributes:
        opener: makes a ready engine; the suite closes it.
        graphs: ONNX of what is measured, for the network alone and for single operators.
        check: raises UsageError for what no engine can be opened for, before any is.
        film: runs an engine on an encoded video, end to end.
        limits: precision -> share of the reference's labels below which an engine is wrong.
        sharer: needed where streams share an engine.
    """

    opener: Callable[[Candidate], Engine]
    graphs: Graphs | None = None
    check: Callable[[Candidate], object] | None = None
    film: Callable[[Engine], EndToEnd] | None = None
    limits: Mapping[Precision, float] = field(default_factory=dict)
    sharer: Sharer | None = None


@dataclass(frozen=True, slots=True)
class Suite:
    """What to measure: every engine in every precision, and every peer, at every size.

    Attributes:
        engines: backends or engine files.
        sizes: heights and widths of the frames.
        batches: numbers of frames per call.
        streams: numbers of calls at the same time.
        precisions: each "auto" or a precision.
        device: "auto", "cpu" or "cuda".
        threads: CPU threads asked for; None: the runtime's default.
        protocol: how times are taken.
        cpu_time: measure the process's CPU time as well.
        interleave: all at once, in turns, so that ratios hold on an unsteady machine.
        peers: foreign networks.
        per_layer: time single operators as well, where the runtime tells.
        tails: each "auto", "graph" or "native", of engines that leave the choice.
        pin: keep threads on their cores, where an engine can.
        share: how streams share one engine; None: each has its own.
    """

    engines: tuple[str, ...]
    sizes: tuple[Size, ...]
    batches: tuple[int, ...] = (1,)
    streams: tuple[int, ...] = (1,)
    precisions: tuple[str, ...] = ("auto",)
    device: str = "auto"
    threads: int | None = None
    protocol: TimingProtocol = FULL
    cpu_time: bool = False
    interleave: bool = False
    peers: tuple[Peer, ...] = ()
    per_layer: bool = False
    tails: tuple[str, ...] = ("auto",)
    pin: bool = False
    share: Share | None = None

    def candidates(self) -> list[Candidate]:
        """All there is to measure, in order.

        Raises:
            UsageError: nothing, or what cannot be measured together.
        """
        if not self.engines or not self.sizes:
            raise UsageError("nothing to measure: name at least one --engine and one --size")
        if self.interleave and self.streams != (1,):
            raise UsageError(
                "--interleave runs one call at a time; measure --streams in a run of their own"
            )
        self._check_share()
        names = [peer.name for peer in self.peers]
        if len(set(names)) != len(names):
            raise UsageError(f"two peers have one name ({', '.join(names)}); say FILE:NAME")
        found = []
        for size in self.sizes:
            for batch in self.batches:
                for streams in self.streams:
                    rest = (self.device, size, batch, streams)
                    for engine in self.engines:
                        share = self._share_of(engine, streams)
                        found += [
                            Candidate(engine, precision, *rest, tail=tail, share=share)
                            for precision in self.precisions
                            for tail in self.tails_of(engine)
                        ]
                    share = self._share_of(BACKEND, streams)
                    found += [
                        Candidate(BACKEND, "auto", *rest, name, share=share) for name in names
                    ]
        return found

    def _check_share(self) -> None:
        if self.share is None:
            return
        if self.interleave:
            raise UsageError(
                "--interleave runs one call at a time; measure --share in a run of its own"
            )
        if self.batches != (1,):
            raise UsageError(
                "streams that share an engine give it single frames; leave --batch out, and say "
                "how many may be run together: --max-batch"
            )

    def _share_of(self, engine: str, streams: int) -> Share | None:
        # A file has the batch it has; what is built here need not be larger than ever filled.
        if self.share is None or _is_file(engine):
            return self.share
        return self.share.among(streams)

    def tails_of(self, engine: str) -> tuple[str, ...]:
        """The tails to measure an engine with: one where it has but its own."""
        own = _is_file(engine) or (engine != "auto" and engine not in CHOOSING)
        # A single one is asked for as it is: what does not fit is refused, not left out.
        return ("auto",) if own and len(self.tails) > 1 else self.tails


def _is_file(engine: str) -> bool:
    return engine not in ENGINES and engine != "auto"
