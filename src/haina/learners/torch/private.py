"""Private: clients trained by DP-SGD, one after another. What is drawn, what it costs and what remains unsafe is said in `haina.learners.dpsgd`.

All trained tensors are clipped as one vector, those that stay with the client included. Rows are taken a few at a time, for memory: sums are whole
numbers, so that it changes nothing.

Trap: a row whose gradient is not finite counts as zero, and nobody is told. An update that is refused for it would give the row away.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

import torch
from torch import nn

from haina.artifact import Array
from haina.learners.dpsgd import UNITS, Draws
from haina.learners.learner import Work
from haina.learners.torch.flat import Flat
from haina.learners.torch.loop import Client, Descent, Loss, drawing, module_seed
from haina.learners.torch.rowwise import Rowwise

#: Bytes of single examples' gradients at once (measured: 1 to 8 MB is best for every built-in model; a row of the cnn alone takes 6.7 MB).
AT_ONCE = 1 << 23

#: Rows are clipped to this part of the bound. Of what is left, float32 needs 2^-23 (in the factor and the product); the rest is for what other rows
#: round when one row comes or goes: less than 2^-22 of each was measured for the built-in models, so it covers batches of 4,000.
MARGIN = 1 - 2.0**-10


class Private:
    """The executor of DP-SGD, one client after another.

    Args:
        flat: the module.
        losses: outputs and targets of a batch -> `[B]` losses.
    """

    def __init__(self, flat: Flat, losses: Loss) -> None:
        self._flat, self._device = flat, flat.weights.device
        self._rowwise = Rowwise(flat, losses)
        self._proven = False

    def train(self, work: Work, clients: Sequence[Client]) -> Iterator[float]:
        """One client after another (`haina.learners.torch.loop.Executor`).

        Raises:
            LearnerError: the module's gradients are not those of single rows.
        """
        for client in clients:
            began = time.perf_counter()
            self._flat.load(work.model, client.own)
            if not self._proven:
                self._rowwise.prove(client)
                self._proven = True
                self._flat.load(work.model, client.own)
            with drawing(module_seed(work, client.name), self._device):
                self._run(work, client)
            yield time.perf_counter() - began

    def _run(self, work: Work, client: Client) -> None:
        """The local steps on the loaded module; a step without rows is one of noise."""
        training, examples = work.training, len(client.y)
        assert training.example_clip is not None
        draws, descent = Draws(work, client.name), Descent(self._flat, work, client.place)
        value = training.example_clip / UNITS / min(training.batch_size, examples)
        with self._rowwise.hooked() as module:
            for _ in range(training.steps_of(examples)):
                units = self.sum(module, client, draws.rows(examples), training.example_clip)
                noisy = units + torch.from_numpy(draws.noise(len(units))).to(units)
                descent.step((noisy * value).float())

    def sum(self, module: nn.Module, client: Client, rows: Array, clip: float) -> torch.Tensor:
        """The clipped gradients of some rows, added up in units.

        Args:
            module: from `Rowwise.hooked`.
            client: whose rows they are.
            rows: their numbers; there may be none.
            clip: the L2 norm that becomes `UNITS`.

        Returns:
            `[trained]` whole numbers in float64, so added exactly.
        """
        total = torch.zeros(len(self._flat.weights), dtype=torch.float64, device=self._device)
        pieces = self._flat.split(total)
        at_once = max(1, AT_ONCE // self._flat.weights.nbytes)
        for start in range(0, len(rows), at_once):
            part = rows[start : start + at_once]
            x, y = (torch.from_numpy(a[part]).to(self._device) for a in (client.x, client.y))
            units = clipped(self._rowwise.gradients(module, x, y), clip)
            for piece, rows_of in zip(pieces, units, strict=True):
                piece.add_(rows_of.sum(0, dtype=torch.float64))
        return total


def clipped(gradients: Sequence[torch.Tensor], clip: float) -> list[torch.Tensor]:
    """Gradients of single rows, clipped as one vector each and cut off to whole units.

    Args:
        gradients: `[B, *shape]` float32 for each trained tensor.
        clip: the L2 norm that becomes `UNITS`, > 0.

    Returns:
        Whole numbers, of the same shapes; the L2 norm of a row is at most `MARGIN * UNITS` and float32's rounding, and below `UNITS`. Rows that are
        not finite are left out.
    """
    norms = [torch.linalg.vector_norm(g.reshape(len(g), -1), dim=1, dtype=torch.float64) for g in gradients]
    norm = torch.stack(norms).square().sum(0).sqrt()
    finite = norm.isfinite()
    factor = (UNITS / (norm[finite] / MARGIN).clamp(min=clip)).float()
    kept = gradients if finite.all() else [gradient[finite] for gradient in gradients]
    return [(gradient * factor.view(-1, *(1,) * (gradient.ndim - 1))).trunc_() for gradient in kept]
