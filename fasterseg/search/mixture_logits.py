"""`ArchLogits`: the architecture tensors of one searched network, and what they weigh."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from fasterseg.errors import ConfigError
from fasterseg.search.mixture_widths import rows_of
from fasterseg.search.parameters import ArchParameters

START: Final = 1e-3
"""Every logit at the beginning, as in the original."""


@dataclass(frozen=True, slots=True)
class Relaxed:
    """Probabilities of every choice, shaped as in `ArchParameters`.

    Attributes:
        alpha: of the operators of cells of stride 1.
        strided: of the operators of strided cells.
        beta: of the edges.
    """

    alpha: tuple[Tensor, ...]
    strided: tuple[Tensor, ...]
    beta: tuple[Tensor, ...]


class ArchLogits(nn.Module):
    """Logits of operators, edges and widths; see `ArchParameters` for their rows.

    Args:
        layers: of the supernet.
        num_ops: candidate operators.
        num_widths: candidate widths; 1 for a network that is always at full width.
    """

    def __init__(self, layers: int, num_ops: int, num_widths: int) -> None:
        super().__init__()
        self.alpha = _rows((layers, layers - 1, layers - 2), num_ops)
        self.beta = _rows((layers - 2, layers - 3), 2)
        self.ratio = _rows(rows_of(layers), num_widths)

    def groups(self) -> dict[str, list[nn.Parameter]]:
        """The tensors by kind: "alpha", "beta", "ratio"."""
        return {kind: list(getattr(self, kind)) for kind in ("alpha", "beta", "ratio")}

    def relaxed(self, skip: int | None = None) -> Relaxed:
        """Probabilities, with gradient.

        Args:
            skip: column that strided cells never choose, None for none: no derived network has
                a strided skip.
        """
        alpha = tuple(functional.softmax(row, dim=-1) for row in self.alpha)
        strided = alpha
        if skip is not None:
            strided = tuple(functional.softmax(without(row, skip), dim=-1) for row in self.alpha)
        return Relaxed(alpha, strided, tuple(functional.softmax(row, dim=-1) for row in self.beta))

    def parameters_taken(self) -> ArchParameters:
        """The logits as they are now, copied."""
        return ArchParameters(
            *(
                tuple(row.detach().cpu().numpy() for row in rows)
                for rows in (self.alpha, self.beta, self.ratio)
            )
        )

    @torch.no_grad()
    def put(self, parameters: ArchParameters) -> None:
        """Take over logits.

        Raises:
            ConfigError: they are of other layers, operators or widths.
        """
        pairs = list(self._pairs(parameters))
        found = [tuple(theirs.shape) for _, theirs in pairs]
        wanted = [tuple(ours.shape) for ours, _ in pairs]
        if found != wanted:
            raise ConfigError(f"logits of shapes {found} do not fit this supernet: {wanted}")
        for ours, theirs in pairs:
            ours.copy_(theirs)

    def _pairs(self, parameters: ArchParameters) -> Iterator[tuple[nn.Parameter, Tensor]]:
        for kind, ours in self.groups().items():
            for mine, theirs in zip(ours, getattr(parameters, kind), strict=True):
                yield mine, torch.from_numpy(theirs.copy())


def without(logits: Tensor, column: int) -> Tensor:
    """Logits with minus infinity in one column."""
    mask = torch.zeros_like(logits, dtype=torch.bool)
    mask[..., column] = True
    return logits.masked_fill(mask, -torch.inf)


def tap_weights(beta: Sequence[Tensor], layers: int, final: int) -> dict[int, dict[int, Tensor]]:
    """How likely each strided cell is on the way to the last map of a scale.

    The edges are followed backwards from the last layer, as the supernet blends them.

    Args:
        beta: edge probabilities of scale 1 and 2.
        layers: of the supernet.
        final: scale of the last map, 0 to 2.

    Returns:
        Scale -> layer -> probability of the strided cell there; 1 in all for each scale below
        the final one.
    """
    found: dict[int, dict[int, Tensor]] = {scale: {} for scale in range(final)}
    mass = {final: torch.ones((), device=beta[0].device, dtype=beta[0].dtype)}
    for layer in range(layers - 1, 0, -1):
        before: dict[int, Tensor] = {}
        for scale, share in mass.items():
            if scale == 0:
                before[0] = before.get(0, 0) + share
                continue
            down, keep = share, None
            if layer > scale:
                row = beta[scale - 1][layer - scale - 1]
                down, keep = share * row[0], share * row[1]
            found[scale - 1][layer - 1] = down
            before[scale - 1] = before.get(scale - 1, 0) + down
            if keep is not None:
                before[scale] = before.get(scale, 0) + keep
        mass = before
    return found


def _rows(counts: Sequence[int], columns: int) -> nn.ParameterList:
    return nn.ParameterList([torch.full((rows, columns), START) for rows in counts])
