"""What every learner that follows gradients checks beforehand and says afterwards, whatever its framework.

The optimiser is one rule, the same in each framework. With g the mean gradient of a batch, x the received and y the local model,

    g <- g * min(1, clip_norm / ||g||)
    v <- momentum * v + g + weight_decay * y + proximal * (y - x) + offset
    y <- y - learning_rate * v

Clipping bounds what the data say and leaves the corrections alone. `proximal` and `offset` act on shared tensors only: a tensor that stays
with the client has no received value to be pulled to. Before an increment leaves its client, `bounded` clips it and adds noise where asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from haina.artifact import Array
from haina.errors import LearnerError
from haina.layout import Layout
from haina.learners.learner import Metrics, Personal, Training, Work, client_rng
from haina.learners.normalizer import norm_a
from haina.report import Report
from haina.update import Failure

#: Losses with a name: mean over classes' log-likelihood, and the squared error (f(x) - y)^2 without a factor 1/2.
LOSSES = ("cross_entropy", "squared")

#: `client_rng` purpose of the noise on increments.
NOISE = 2

#: Rows looked at in one piece by evaluation and prediction: bounds memory.
CHUNK = 4096

#: Bytes of such a piece where a row becomes many numbers on its way through the model, which should stay in a cache (measured for 5,000 images
#: and the cnn: 1.0 seconds, and 1.4 with 4096 at once).
PIECE = 1 << 20


def check_loss(loss: object) -> None:
    """Refuse a loss that is neither a known name nor a function."""
    if not (callable(loss) or loss in LOSSES):
        raise LearnerError(
            f"loss is {loss!r}",
            allowed=f"{', '.join(LOSSES)}, or a function (outputs, targets) -> [batch] losses",
        )


def check_memory(layout: Layout, trained: set[str], memory: Personal | None) -> None:
    """Refuse trained tensors that stay with the client and would be forgotten after every round."""
    kept = [field.name for field in layout.fields if not field.shared and field.name in trained]
    if kept and memory is None:
        raise LearnerError(
            f"{kept[0]!r} is trained and stays with the client, but nothing keeps it between rounds",
            allowed="a mapping from client to tensors as memory",
            remedy="Pass memory={} to keep it in this process, or a mapping of your own that all workers see",
        )


def check_work(work: Work) -> None:
    """Refuse settings under which local training cannot come to anything."""
    if not 0 < work.learning_rate < float("inf"):
        raise LearnerError(f"the learning rate is {work.learning_rate}", allowed="a finite number > 0")
    if not 0 <= work.learning_rate * work.proximal <= 1:
        raise LearnerError(
            f"proximal {work.proximal:g} times learning rate {work.learning_rate:g} is "
            f"{work.learning_rate * work.proximal:g}",
            allowed="a product in [0, 1]; beyond it each step jumps over the received model",
            remedy=f"Use proximal <= {1 / work.learning_rate:g}, or a smaller learning rate",
        )


def inputs(x: Array) -> Array:
    """Features as frameworks take them: floats and booleans as float32, integers (tokens, pixels) as int32.

    Raises:
        LearnerError: features that are not numbers.
    """
    if x.dtype.kind not in "fiub":
        raise LearnerError(
            f"features have dtype {x.dtype}",
            allowed="numbers",
            remedy="Encode text and dates as numbers first",
        )
    return np.ascontiguousarray(x, dtype=np.int32 if x.dtype.kind in "iu" else np.float32)


def chunk(x: Array) -> int:
    """Rows of `x [n, ...]` to look at in one piece: `PIECE` bytes, 64 to `CHUNK` rows."""
    row = 4 * max(1, int(np.prod(x.shape[1:], dtype=np.int64)))
    return min(CHUNK, max(64, PIECE // row))


def targets(y: Array, loss: object, classes: int) -> Array:
    """Targets as the loss takes them: class numbers as int32, values as float32.

    Args:
        y: `[n]` targets.
        loss: the learner's loss.
        classes: the model's number of outputs.

    Raises:
        LearnerError: labels that are not integers in [0, classes), or targets that are not numbers.
    """
    if loss != "cross_entropy":
        return inputs(y)
    allowed = f"integers from 0 to {classes - 1}, as the model has {classes} outputs"
    if y.dtype.kind not in "iub":
        raise LearnerError(
            f"labels have dtype {y.dtype}",
            allowed=allowed,
            remedy='Number the classes from 0, or use loss="squared" for values',
        )
    if y.size and (y.min() < 0 or y.max() >= classes):
        wrong = int(y.min() if y.min() < 0 else y.max())
        raise LearnerError(
            f"label {wrong} occurs",
            allowed=allowed,
            remedy="Number the classes from 0, or build the model with more outputs",
        )
    return y.astype(np.int32)


def outputs_of(shape: tuple[int, ...], loss: object) -> int:
    """The number of outputs per row, from the shape `[1, ...]` of the model's answer to one row.

    Raises:
        LearnerError: a shape that the named loss cannot use.
    """
    if loss == "cross_entropy" and not (len(shape) == 2 and shape[0] == 1 and shape[1] >= 2):
        raise LearnerError(
            f"the model answers one row with shape {shape}",
            allowed="(1, classes) with at least 2 classes for cross_entropy",
            remedy="End the model with one logit per class",
        )
    if loss == "squared" and shape not in ((1,), (1, 1)):
        raise LearnerError(
            f"the model answers one row with shape {shape}",
            allowed="(1,) or (1, 1) for squared",
            remedy="End the model with one value per row",
        )
    return shape[-1] if len(shape) > 1 else 1


def unusable_rows(row: tuple[int, ...], error: Exception) -> LearnerError:
    """The error of a model that cannot read rows of the given shape."""
    first = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return LearnerError(
        f"the model cannot read rows of shape {row}: {first}",
        allowed="rows of the shape that the model was built for",
        remedy="Build the model for the data's number of features, or reshape the data",
    )


def check_measure(training: Training, loss: object) -> None:
    """Refuse to measure what the loss has no meaning for."""
    known = {"loss_before", "loss_after", "accuracy", "label_counts"}
    possible = known if loss == "cross_entropy" else known - {"accuracy", "label_counts"}
    for name in sorted(training.measure - possible):
        raise LearnerError(
            f"{name} cannot be measured with loss {loss!r}", allowed=", ".join(sorted(possible))
        )


def bounded(work: Work, clients: Sequence[str], rows: Array) -> Array:
    """Increments as they may leave their clients: clipped to `clip_update`, with noise (McMahan et al. 2018, "Learning Differentially Private
    Recurrent Language Models", with the noise drawn by each client).

    A row depends on itself, on its client's name and on the round, never on its neighbours or the framework. A row that is not finite stays so,
    and is refused by the server.

    Trap: the noise follows from the federation's seed, so that a run can be repeated. It hides a client from those who see the model, not from
    those who know the seed, as the server does; and reports are not touched.

    Args:
        work: the round, its seed and its settings.
        clients: k names.
        rows: `[k, d]` increments, float32.

    Returns:
        `[k, d]` float32; the same array where nothing is asked for.
    """
    clip, noise = work.training.clip_update, work.training.noise
    if clip is None:
        return rows
    out = np.empty_like(rows)
    for client, received, kept in zip(clients, rows, out, strict=True):
        row = received.astype(np.float64)
        # NumPy's sum and not BLAS, which would share it among threads.
        norm = float(np.sqrt(np.square(row).sum()))
        if clip < norm < float("inf"):
            row *= clip / norm
        if noise:
            rng = client_rng(work.seed, work.round, client, NOISE)
            row += noise * clip * rng.standard_normal(len(row))
        kept[:] = row
    return out


def no_examples(client: str) -> Failure:
    """What a client without data yields."""
    return Failure(client, "it has no examples")


def report_of(
    work: Work,
    labels: Array,
    steps: int,
    seconds: float,
    classes: int,
    before: Metrics | None,
    after: Metrics | None,
) -> Report:
    """What a client says: counts, ||a||_1, and the measured fields asked for and no others."""
    measure = work.training.measure
    return Report(
        examples=float(len(labels)),
        steps=steps,
        normalizer=norm_a(steps, work.training.momentum, work.learning_rate * work.proximal),
        learning_rate=work.learning_rate,
        loss_before=before.loss if before and "loss_before" in measure else None,
        loss_after=after.loss if after and "loss_after" in measure else None,
        accuracy=after.accuracy if after and "accuracy" in measure else None,
        label_counts=tuple(int(count) for count in np.bincount(labels, minlength=classes))
        if "label_counts" in measure
        else None,
        seconds=seconds,
    )


def describe(kind: str, layout: Layout, loss: object) -> dict[str, Any]:
    """What kind of model this is, in plain JSON values."""
    return {
        "kind": kind,
        "loss": loss if isinstance(loss, str) else getattr(loss, "__name__", "own"),
        "parameters": layout.size,
        "tensors": {field.name: list(field.shape) for field in layout.fields},
        "local": [field.name for field in layout.fields if not field.shared],
    }
