"""`PretrainLearner`, `CoSearchLearner`: steps of the mixture's weights, and of its logits."""

from __future__ import annotations

import math
from collections.abc import Generator, Mapping, Sequence
from typing import Any, Final

import torch
from torch import Tensor

from fasterseg.arch.latency import LatencyTable
from fasterseg.arch.space import SearchSpace
from fasterseg.errors import ConfigError
from fasterseg.search.coderived import space_of
from fasterseg.search.copull import gradient, make_pull
from fasterseg.search.cosettings import MixtureSettings
from fasterseg.search.data import SampleStream
from fasterseg.search.distributed import Group
from fasterseg.search.mixture import KINDS, Kind
from fasterseg.search.mixture_learner import ForwardPass, MixtureLearner


class PretrainLearner(MixtureLearner):
    """Trains the weights at equal logits: widest, narrowest, and twice at random.

    The own parts of the teacher and the student take turns; in the original the teacher's only.
    """

    def passes(self) -> tuple[ForwardPass, ...]:
        """The forward passes of a step."""
        student: Kind = "teacher" if self.mixture.cosearch.original else "student"
        return (
            ForwardPass("max", "teacher", "max"),
            ForwardPass("min", student, "min"),
            ForwardPass("random_teacher", "teacher", "random"),
            ForwardPass("random_student", student, "random"),
        )

    def step(
        self, number: int, images: Tensor, labels: Tensor, lr: float, decay: float
    ) -> dict[str, float]:
        """One step; see `Learning.step`."""
        self.begin(lr)
        return self.learn_weights(self.passes(), number, (images, labels), decay)


_OF_LOGITS: Final[Mapping[Kind, ForwardPass]] = {
    kind: ForwardPass(kind, kind, "chosen") for kind in KINDS
}
_EXTREMES: Final = (ForwardPass("max", "student", "max"), ForwardPass("min", "student", "min"))


class CoSearchLearner(MixtureLearner):
    """Trains the logits of teacher and student, then the weights, in every step.

    Args:
        settings: of the run.
        space: what is searched, with the classes of the data set.
        samples: what the weights learn from; their classes' shares count.
        architecture: what the logits learn from: other pictures.
        table: of the device; None without a target.
        device: "cpu" or "cuda".
        group: of one process.
        start: `state_dict` of a pretrained supernet.

    Attributes:
        pull: what pulls the latency.

    Raises:
        ConfigError: a target without a table, or several processes.
        UsageError: the table does not fit the space.
        MissingLatencyError: rows are missing.
    """

    def __init__(
        self,
        settings: MixtureSettings,
        space: SearchSpace,
        samples: SampleStream,
        architecture: SampleStream,
        table: LatencyTable | None,
        *,
        device: str = "cpu",
        group: Group | None = None,
        start: Mapping[str, Tensor] | None = None,
    ) -> None:
        super().__init__(settings, space, samples.shares, device=device, group=group, start=start)
        search = settings.cosearch
        self.pull = make_pull(search, space_of(self.network, "student"), table)
        self._batches = _Numbered(architecture, settings.train.batch)
        self._optimizers = {
            kind: torch.optim.Adam(
                self.network.arch(kind).parameters(),
                lr=search.arch_lr,
                betas=search.betas,
                weight_decay=search.weight_decay,
            )
            for kind in KINDS
        }

    def step(
        self, number: int, images: Tensor, labels: Tensor, lr: float, decay: float
    ) -> dict[str, float]:
        """One step; see `Learning.step`."""
        if number > 0 and number % self.mixture.steps_per_epoch == 0:
            self.pull.end_epoch(self.parameters("student"))
        self.begin(lr)
        figures = self._learn_logits(number)
        if not all(math.isfinite(value) for value in figures.values()):
            return {"total": math.nan, **figures}
        passes = (*_OF_LOGITS.values(), *_EXTREMES)
        return {**self.learn_weights(passes, number, (images, labels), decay), **figures}

    def _learn_logits(self, number: int) -> dict[str, float]:
        """A step of the logits of both networks, on pictures of their own."""
        x, truth = self.on_device(*self._batches(number))
        figures: dict[str, float] = {}
        for index, kind in enumerate(KINDS):
            passes = [_OF_LOGITS[kind]]
            if kind == "student" and self.mixture.cosearch.original:
                passes += _EXTREMES
            draw = 8 + 4 * index
            slopes, loss = self._slopes(x, truth, passes, number, draw)
            figures[f"logits_{kind}"] = loss
            if kind == "student":
                again = self.choices(passes[0], number, draw, learn=True)
                slopes, more = self.pull(self.network.arch(kind), *again, slopes)
                figures |= more
            if all(bool(one.isfinite().all()) for rows in slopes.values() for one in rows):
                self._descend(kind, slopes)
            else:
                figures[f"logits_{kind}"] = math.nan
        return figures

    def _slopes(
        self, x: Tensor, truth: Tensor, passes: Sequence[ForwardPass], number: int, draw: int
    ) -> tuple[dict[str, list[Tensor]], float]:
        """Gradients of the segmentation loss by kind of logits, and the loss."""
        groups = self.network.arch(passes[0].kind).groups()
        flat = [one for rows in groups.values() for one in rows]
        sums, total = [torch.zeros_like(one) for one in flat], 0.0
        for index, forward in enumerate(passes):
            relaxed, widths = self.choices(forward, number, draw + index, learn=True)
            loss = self.loss(x, truth, forward.kind, relaxed, widths)
            # Gradients of the logits only: those of the weights would be thrown away.
            sums = [a + b for a, b in zip(sums, gradient(loss, flat), strict=True)]
            total += float(loss.detach())
        found = iter(sums)
        return {kind: [next(found) for _ in rows] for kind, rows in groups.items()}, total

    def _descend(self, kind: Kind, slopes: Mapping[str, Sequence[Tensor]]) -> None:
        for group, rows in self.network.arch(kind).groups().items():
            for one, slope in zip(rows, slopes[group], strict=True):
                one.grad = slope
        self._optimizers[kind].step()
        # Or the weights' optimiser would take these as its own.
        self._optimizers[kind].zero_grad(set_to_none=True)

    def state(self) -> dict[str, Any]:
        """Weights, logits, moments of all optimisers, and the pull."""
        optimizers = {kind: one.state_dict() for kind, one in self._optimizers.items()}
        return {**super().state(), "logits": optimizers, "pull": self.pull.state()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Put back what `state` gave."""
        super().restore(state)
        for kind, one in self._optimizers.items():
            one.load_state_dict(state["logits"][kind])
        self.pull.restore(state["pull"])


class _Numbered:
    """Batches of a stream by the number of their step, which mostly follow each other.

    Args:
        stream: of samples.
        batch: samples of a step.
    """

    def __init__(self, stream: SampleStream, batch: int) -> None:
        self._stream = stream
        self._batch = batch
        self._next = -1
        self._open: Generator[tuple[Tensor, Tensor], None, None] | None = None

    def __call__(self, number: int) -> tuple[Tensor, Tensor]:
        """Images and labels of a step."""
        if self._open is None or self._next != number:
            if self._open is not None:
                self._open.close()
            self._open = self._stream.batches(number * self._batch)
        self._next = number + 1
        return next(self._open)


def make_learner(
    settings: MixtureSettings,
    space: SearchSpace,
    samples: SampleStream,
    architecture: SampleStream | None = None,
    table: LatencyTable | None = None,
    *,
    device: str = "cpu",
    group: Group | None = None,
    start: Mapping[str, Tensor] | None = None,
) -> PretrainLearner | CoSearchLearner:
    """The learner of a stage.

    Args:
        settings: of the run.
        space: what is searched, with the classes of the data set.
        samples: what the weights learn from.
        architecture: what the logits learn from; needed by the search.
        table: of the device; needed by a search with a target.
        device: "cpu" or "cuda".
        group: of one process.
        start: `state_dict` of a supernet to start from instead of random weights.

    Raises:
        ConfigError: something that the stage needs is missing.
        UsageError: the table does not fit the space.
        MissingLatencyError: rows are missing.
    """
    if settings.stage == "pretrain":
        return PretrainLearner(
            settings, space, samples.shares, device=device, group=group, start=start
        )
    if architecture is None:
        raise ConfigError("a co-search needs a second stream of samples for the logits")
    return CoSearchLearner(
        settings, space, samples, architecture, table, device=device, group=group, start=start
    )
