"""`--engine auto`: open what there is, check its labels, time what passed; the fastest is taken."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing
from datetime import UTC, datetime
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fasterseg.deploy.gate import FRAMES, OneFrame
from fasterseg.deploy.parity import compare_engines
from fasterseg.errors import EngineError, UsageError
from fasterseg.runtime.base import PIXEL_AGREEMENT, Engine, EngineSpec
from fasterseg.runtime.choice import Choice, Question, fastest
from fasterseg.streets import images
from fasterseg.types import Size

Clock = Callable[[], float]

INT8_AGREEMENT: Final = 0.9
"""Share of the fp32 labels below which an int8 engine is another network."""

INT8_FURTHER: Final = 0.005
"""Share of labels by which an int8 engine may be further from fp32 than the first one is.

Runtimes round between the layers differently: ONNX Runtime and OpenVINO agree on 99.88 % of the
shipped model's labels at 360x480 (97.7 % at 64x96, which is all borders), and are equally near to
fp32 (99.6 %). Quality itself is judged by mIoU.
"""

WORTH: Final = 0.03
"""Share of time that another engine than the first must save."""

WARM_UPS: Final = 2
ROUNDS: Final = 9


def measure(
    question: Question, on_note: Callable[[str], None], clock: Clock = time.perf_counter
) -> Choice:
    """Find the fastest engine whose labels are right.

    Engines are timed in turn, a call each a round, so that another program slows all of them.

    Args:
        question: what there is to choose from, the one to be taken in doubt first.
        on_note: gets a line for each engine that was checked.
        clock: seconds.

    Raises:
        EngineError: not even the first one can be opened.
    """
    left_out: dict[str, str] = {}
    agreement: dict[str, float] = {}
    passed: dict[str, Engine] = {}
    with ExitStack() as stack:
        for name in question.names:
            try:
                engine = stack.enter_context(closing(question.open_one(name)))
            except (EngineError, UsageError) as error:
                if len(left_out) == len(question.names) - 1:
                    raise
                left_out[name] = str(error)
                continue
            passed[name] = engine
        frames = _frames(next(iter(passed.values())).spec)
        if len(passed) > 1:
            _check(question, passed, frames, agreement, left_out, on_note)
        times = _time(passed, frames, clock)
    return Choice(
        engine=fastest(times, question.names[0], WORTH),
        milliseconds=times,
        agreement=agreement,
        left_out=left_out,
        measured_on=datetime.now(UTC).date().isoformat(),
    )


def _check(
    question: Question,
    passed: dict[str, Engine],
    frames: list[NDArray[np.uint8]],
    agreement: dict[str, float],
    left_out: dict[str, str],
    on_note: Callable[[str], None],
) -> None:
    """Take out engines whose labels are not the reference's."""
    first = question.names[0]
    with closing(question.reference()) as reference:
        for name, engine in list(passed.items()):
            threshold = threshold_of(engine.spec, agreement.get(first))
            report = compare_engines(OneFrame(reference), OneFrame(engine), frames, threshold)
            agreement[name] = report.agreement
            on_note(
                f"auto: {name} gives {report.agreement:.4%} of the reference's labels "
                f"({report.threshold:.2%} demanded)"
            )
            if not report.passed:
                left_out[name] = f"only {report.agreement:.4%} of its labels are right"
            elif not question.trained and not report.is_meaningful and name != first:
                left_out[name] = "untrained weights prove nothing of its labels"
            else:
                continue
            del passed[name]
    if not passed:
        raise EngineError(
            f"none of the engines {', '.join(question.names)} gives the reference's labels: "
            f"{'; '.join(f'{name}: {reason}' for name, reason in left_out.items())}. Compare "
            "them: fasterseg verify; and name one with --engine"
        )


def threshold_of(spec: EngineSpec, of_first: float | None) -> float:
    """Share of the reference's labels that an engine must give to be chosen.

    Args:
        spec: of the engine.
        of_first: what the first one gave, None where this is that one.
    """
    if spec.precision != "int8":
        return PIXEL_AGREEMENT[spec.precision]
    return max(INT8_AGREEMENT, (of_first or 0.0) - INT8_FURTHER)


def _frames(spec: EngineSpec) -> list[NDArray[np.uint8]]:
    size = spec.size or Size(360, 640)
    return [np.ascontiguousarray(image) for image, _ in images(0, FRAMES, size)]


def _time(
    engines: Mapping[str, Engine], frames: list[NDArray[np.uint8]], clock: Clock
) -> dict[str, float]:
    """Median milliseconds of a call, from fastest to slowest."""
    taken: dict[str, list[float]] = {name: [] for name in engines}
    for turn in range(WARM_UPS + ROUNDS):
        for name, engine in engines.items():
            batch = np.repeat(frames[turn % len(frames)][None], engine.spec.batch or 1, axis=0)
            begin = clock()
            engine.run(batch)
            taken[name].append(1e3 * (clock() - begin))
    medians = {name: round(statistics.median(times[WARM_UPS:]), 3) for name, times in taken.items()}
    return dict(sorted(medians.items(), key=lambda one: one[1]))
