"""The original's expected latency, number by number."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import Tensor  # noqa: E402

from fasterseg.arch.latency import LatencyTable  # noqa: E402
from fasterseg.arch.space import SearchSpace  # noqa: E402
from fasterseg.errors import MissingLatencyError  # noqa: E402
from fasterseg.search.mixture_widths import Widths, chosen_widths, equal_widths  # noqa: E402
from fasterseg.search.original_cost import OriginalLatency, regulariser, uniform  # noqa: E402
from tests.parity import generator  # noqa: E402
from tests.shared import ROOT, shared  # noqa: E402

pytestmark = pytest.mark.torch

LAYERS, OPS = 16, 5
TABLE = ROOT / "benchmarks/tables/gtx1080ti-original/tensorrt5.1-fp32-1024x2048.json"
ENDS = {"teacher": (12,), "student": (8,)}


@dataclass
class Case:
    """Logits of one network of a fixture, and the noise of its widths."""

    alpha: list[Tensor]
    beta: list[Tensor]
    ratio: list[Tensor]
    noise: list[Tensor] | None

    def widths(self) -> Widths:
        if self.ratio[0].shape[1] == 1:
            return equal_widths(LAYERS, 12)
        return chosen_widths(self.ratio, SearchSpace().widths, noise=self.noise)


def cases() -> Iterator[tuple[str, str, Case, dict[str, Any]]]:
    recorded = json.loads(shared("reference/parity/expected-latency.json").read_text())["cases"]
    for name, fixture in recorded.items():
        for index, kind in enumerate(ENDS):
            yield name, kind, case_of(name, index), fixture[kind]


def case_of(name: str, index: int) -> Case:
    prefix = "lat-" + name.split("_")[1]

    def logits(tensor: str, rows: int, columns: int) -> Tensor:
        values = np.full((rows, columns), 0.001)
        if not name.startswith("initial"):
            scale = 3 if "scale3" in name else 1
            noise = generator(f"{prefix}/arch/{tensor}").standard_normal((rows, columns))
            values = np.round(scale * noise, 4)
        made: Tensor = torch.from_numpy(values.astype(np.float32)).requires_grad_()
        return made

    widths = (1, 5)[index]
    noise = None
    if "with_noise" in name:
        draw = generator("lat-a/gumbel")
        rows = [
            np.stack([draw.random(5).astype(np.float32) for _ in range(n)]) for n in (15, 15, 14)
        ]
        drawn = [torch.from_numpy(one) for one in rows]
        noise = [-torch.log(-torch.log(one + 1e-20) + 1e-20) for one in drawn]
    return Case(
        [logits(f"alpha_{index}_{scale}", LAYERS - scale, OPS) for scale in range(3)],
        [logits(f"beta_{index}_{scale}", LAYERS - 1 - scale, 2) for scale in (1, 2)],
        [logits(f"ratio_{index}_{scale}", (15, 15, 14)[scale], widths) for scale in range(3)],
        noise,
    )


def latency_of(kind: str) -> OriginalLatency:
    space = SearchSpace(stem_widths=ENDS[kind], head_widths=ENDS[kind])
    return OriginalLatency(space, LatencyTable.load(TABLE))


def test_every_recorded_latency_and_gradient_is_reproduced() -> None:
    latencies = {kind: latency_of(kind) for kind in ENDS}
    checked = 0
    for name, kind, case, recorded in cases():
        latency = latencies[kind]
        alpha = [rows.softmax(-1) for rows in case.alpha]
        beta = [rows.softmax(-1) for rows in case.beta]
        flat_alpha, flat_beta = uniform(alpha), uniform(beta)
        found = {
            "none": latency(flat_alpha, flat_beta, None),
            "alpha_only": latency(alpha, flat_beta, None),
            "beta_only": latency(flat_alpha, beta, None),
            "ratio_only": latency(flat_alpha, flat_beta, case.widths()),
            "combined_1_497_2_over_500": regulariser(latency, alpha, beta, case.widths()),
            "all": latency(alpha, beta, case.widths()),
        }
        for setting, ms in found.items():
            if setting in recorded:
                assert ms.item() == pytest.approx(recorded[setting], rel=1e-5), (name, setting)
                checked += 1
        torch.autograd.backward(found["all"])
        for tensor, sums in recorded["grad_all"].items():
            group, _, scale = tensor.split("_")
            rows = getattr(case, group)[int(scale) - (group == "beta")]
            slope = torch.zeros(()) if rows.grad is None else rows.grad
            # Sums over a softmax are zero but for rounding, which is relative to the parts.
            near = 1e-5 * sums["abs_sum"] + 2e-6
            assert float(slope.sum()) == pytest.approx(sums["sum"], abs=near), (name, tensor)
            assert float(slope.abs().sum()) == pytest.approx(sums["abs_sum"], abs=near)
            checked += 1
    assert checked >= 120


def test_a_single_width_leaves_its_part_of_the_regulariser_to_the_edges() -> None:
    latency = latency_of("teacher")
    alpha = [torch.full((LAYERS - scale, OPS), 0.2) for scale in range(3)]
    beta = [torch.tensor([0.3, 0.7]).repeat(LAYERS - 1 - scale, 1) for scale in (1, 2)]
    operators = latency(alpha, uniform(beta), None)
    edges = latency(uniform(alpha), beta, None)
    expected = (operators + 499 * edges) / 500
    assert regulariser(latency, alpha, beta, None).item() == pytest.approx(expected.item())


def test_the_stems_have_their_recorded_latency() -> None:
    recorded = json.loads(shared("reference/parity/expected-latency.json").read_text())
    for kind, ms in recorded["stem_latency_ms"].items():
        assert latency_of(kind).stem_ms == pytest.approx(ms, rel=1e-9)


def test_a_missing_row_is_named() -> None:
    table = LatencyTable.load(TABLE)
    rows = {key: ms for key, ms in table.rows.items() if not key.startswith("skip/")}
    latency = OriginalLatency(SearchSpace(), replace(table, rows=rows))
    alpha = [torch.full((LAYERS - scale, OPS), 0.2) for scale in range(3)]
    beta = [torch.full((LAYERS - 1 - scale, 2), 0.5) for scale in (1, 2)]
    with pytest.raises(MissingLatencyError, match="skip/"):
        latency(alpha, beta, None)
