"""Widths of a forward pass of the supernet: one for every tensor between two cells.

The differentiable choice is the straight-through Gumbel softmax (Jang et al., ICLR 2017) of the
paper, or ReinMax (Liu et al., NeurIPS 2023), whose gradient is accurate to second order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

from fasterseg.search.cosettings import Estimator

_TINY: Final = 1e-20


def rows_of(layers: int) -> tuple[int, int, int]:
    """Tensors between cells per scale, as `ArchParameters.ratio` has them."""
    return layers - 1, layers - 1, layers - 2


@dataclass(frozen=True, slots=True)
class Widths:
    """One width for every tensor that enters a cell, but for the stem's.

    Attributes:
        twelfths: per scale and row of `ArchParameters.ratio`.
        factors: the same rows as scalars of value 1 that carry the gradient to the width logits;
            None where the widths were not chosen by logits.
    """

    twelfths: tuple[tuple[int, ...], ...]
    factors: tuple[Tensor, ...] | None = None

    def entering(self, layer: int, scale: int) -> int:
        """Width of the tensor that enters a cell; the layer is not the first."""
        return self.twelfths[scale][layer - max(scale, 1)]

    def factor(self, layer: int, scale: int) -> Tensor | None:
        """The scalar of that tensor; None for the stem's and where there are none."""
        if self.factors is None or layer == 0:
            return None
        return self.factors[scale][layer - max(scale, 1)]


def equal_widths(layers: int, width: int) -> Widths:
    """The same width everywhere, in twelfths."""
    return Widths(tuple((width,) * rows for rows in rows_of(layers)))


def random_widths(layers: int, widths: Sequence[int], generator: torch.Generator) -> Widths:
    """Every width as likely as the others, in every row."""
    drawn = [torch.randint(len(widths), (rows,), generator=generator) for rows in rows_of(layers)]
    return Widths(tuple(tuple(widths[index] for index in row.tolist()) for row in drawn))


def gumbel_noise(layers: int, candidates: int, generator: torch.Generator) -> tuple[Tensor, ...]:
    """Standard Gumbel noise for every width logit, scale after scale."""
    drawn = [torch.rand((rows, candidates), generator=generator) for rows in rows_of(layers)]
    return tuple(-torch.log(-torch.log(uniform + _TINY) + _TINY) for uniform in drawn)


def chosen_widths(
    ratio: Sequence[Tensor],
    widths: Sequence[int],
    *,
    noise: Sequence[Tensor] | None = None,
    temperature: float = 1.0,
    estimator: Estimator = "gumbel",
) -> Widths:
    """Widths that the logits choose, with their gradient.

    Args:
        ratio: width logits per scale, (rows, W).
        widths: the candidates in twelfths, W of them.
        noise: added to the logits; None takes the most likely width of every row.
        temperature: of the softmax that lends its gradient; the choice does not depend on it.
        estimator: how the gradient is estimated.
    """
    picks, factors = [], []
    for scale, logits in enumerate(ratio):
        log_p = functional.log_softmax(logits, dim=-1)
        noisy = log_p if noise is None else log_p + noise[scale].to(log_p)
        index = noisy.detach().argmax(dim=-1, keepdim=True)
        hard = torch.zeros_like(log_p).scatter_(-1, index, 1.0)
        if estimator == "gumbel":
            soft = functional.softmax(noisy / temperature, dim=-1)
        else:
            soft = _second_order(log_p, hard, temperature)
        through = hard - soft.detach() + soft
        picks.append(index.squeeze(-1))
        factors.append(through.gather(-1, index).squeeze(-1))
    rows = torch.cat(picks).tolist()
    ends = [sum(len(pick) for pick in picks[: scale + 1]) for scale in range(len(picks))]
    twelfths = tuple(
        tuple(widths[column] for column in rows[end - len(pick) : end])
        for pick, end in zip(picks, ends, strict=True)
    )
    return Widths(twelfths, tuple(factors))


def _second_order(log_p: Tensor, hard: Tensor, temperature: float) -> Tensor:
    """What ReinMax differentiates, for logits whose softmax is normalised."""
    between = (hard + functional.softmax(log_p / temperature, dim=-1)) / 2
    shifted = functional.softmax((between.clamp_min(_TINY).log() - log_p).detach() + log_p, dim=-1)
    return 2 * shifted - 0.5 * log_p.exp()
