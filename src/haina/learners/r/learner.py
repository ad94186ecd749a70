"""RLearner: local training by R code of the site's own; coefficients are averaged.

    train <- function(params, data, config) list(params = , n = , metrics = )

The federation file names the coefficients, so a coordinator makes and averages models without R. They are float64 all the way. What R code means by
a round is its own: a whole fit (`glm.fit`), or steps from `params` on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, ClassVar

import numpy as np

from haina.artifact import Array
from haina.errors import LearnerError
from haina.learners.gradient import bounded, no_examples
from haina.learners.learner import Metrics, Work, client_rng, refuse_examples
from haina.learners.r.answer import Answer, RError
from haina.learners.r.coefficients import Coefficients
from haina.learners.r.home import Config, Home
from haina.report import MEASURED, Report
from haina.strategy.parts import Payload
from haina.update import Failure, Result, Update

#: The random numbers of R: a purpose of their own among a client's.
_SEED = 17


@dataclass(frozen=True)
class RLearner:
    """Coefficients that R trains.

    Args:
        name: of the learner in a federation file.
        home: where R computes.
        model: what is learnt.
        classes: how many classes there are, >= 2; 0 for values.
        settings: `[model] settings` of the file, handed to R as `config$settings`.
    """

    payload: ClassVar[Payload] = Payload.AVERAGE
    name: str
    home: Home
    model: Coefficients
    classes: int = 0
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def update_size(self) -> None:
        """That of the model."""
        return None

    @property
    def personal(self) -> None:
        """Nothing stays with a client."""

    def initial(self, seed: int) -> Array:
        """`[d]` as the file says; zeros if it does not."""
        return self.model.initial()

    def train(self, work: Work) -> Iterator[Result]:
        """The increment of each client, float64, or why there is none: an error in R, an R that ended or did not answer in time, or numbers that
        cannot be used.

        Raises:
            LearnerError: nobody can be trained here (no R, no script, a service that is not allowed), or something is asked that R code has no
                word for: control vectors, clipped examples.
        """
        self.model.layout.check(work.model)
        refuse_examples(work.training, self.name)
        if work.offsets is not None:
            raise LearnerError(
                f"the strategy adds control vectors to gradients, and the {self.name} learner shows none",
                allowed="strategies without them, such as fedavg, fedprox, fedadam or the robust ones",
            )
        for k, client in enumerate(work.shards.clients):
            x, y = work.shards.of(k)
            if not len(x):
                yield no_examples(client)
                continue
            began = perf_counter()
            try:
                answer = self.home.train(work.model, _flat(x), y, self._config(work, client, len(x)))
                answer.check(self.model)
            except RError as error:
                yield Failure(client, error.reason)
                continue
            yield self._update(work, client, y, answer, perf_counter() - began)

    def _update(self, work: Work, client: str, y: Array, answer: Answer, seconds: float) -> Update:
        measure, said = work.training.measure, answer.metrics
        counts = None
        if "label_counts" in measure and self.classes:
            counts = tuple(int(count) for count in np.bincount(y, minlength=self.classes))
        report = Report(
            examples=float(len(y)) if answer.n is None else answer.n,
            steps=work.training.steps_of(len(y)),
            learning_rate=work.learning_rate,
            # Measured fields are sent when they are asked for and not otherwise, whatever R gives.
            loss_before=said.get("loss_before") if "loss_before" in measure else None,
            loss_after=said.get("loss_after") if "loss_after" in measure else None,
            accuracy=said.get("accuracy") if "accuracy" in measure else None,
            label_counts=counts,
            seconds=seconds,
            extra={name: value for name, value in said.items() if name not in MEASURED},
        )
        rows = bounded(work, (client,), (answer.params - work.model)[None])
        return Update(client, rows[0], report)

    def _config(self, work: Work, client: str, examples: int) -> Config:
        training = work.training
        return {
            "client": client,
            "round": work.round,
            "learning_rate": work.learning_rate,
            "proximal": work.proximal,
            "epochs": training.epochs,
            "steps": training.steps_of(examples),
            "batch_size": training.batch_size,
            "momentum": training.momentum,
            "weight_decay": training.weight_decay,
            "measure": sorted(training.measure),
            # Whole numbers of R have 31 bits.
            "seed": int(client_rng(work.seed, work.round, client, _SEED).integers(2**31)),
            "settings": dict(self.settings),
        }

    def evaluate(self, model: Array, x: Array, y: Array) -> Metrics | None:
        """What R says of a model on rows; None where R does not say.

        By the site's own `evaluate`, else from its `predict`: mean squared difference, or cross-entropy and accuracy.
        """
        self.model.layout.check(model)
        if not len(x):
            return None
        own = self.home.evaluate(model, _flat(x), y, self._asked)
        if own is not None:
            more = {name: value for name, value in own.items() if name not in ("loss", "accuracy")}
            return Metrics(len(x), own["loss"], own.get("accuracy"), more)
        predicted = self.home.predict(model, _flat(x), self._asked)
        if predicted is None:
            return None
        predicted = self._shaped(predicted, len(x))
        if not self.classes:
            return Metrics(len(x), float(np.mean((predicted - y) ** 2)))
        chosen = np.maximum(predicted[np.arange(len(y)), y], np.finfo(np.float64).tiny)
        accuracy = float(np.mean(predicted.argmax(axis=1) == y))
        return Metrics(len(x), float(-np.mean(np.log(chosen))), accuracy)

    def predict(self, model: Array, x: Array) -> Array:
        """`[N, classes]` probabilities, or `[N]` values.

        Raises:
            LearnerError: there is nothing here that could predict.
        """
        self.model.layout.check(model)
        predicted = self.home.predict(model, _flat(x), self._asked)
        if predicted is None:
            raise LearnerError(
                "nothing here predicts",
                allowed="a script that defines predict(params, x, config), with R on this machine",
            )
        return self._shaped(predicted, len(x))

    def _shaped(self, predicted: Array, rows: int) -> Array:
        """One probability a row is that of the second of two classes."""
        if self.classes == 2 and predicted.shape == (rows,):
            predicted = np.column_stack([1.0 - predicted, predicted])
        wanted = (rows, self.classes) if self.classes else (rows,)
        if predicted.shape != wanted:
            raise LearnerError(f"predict() in R gave shape {predicted.shape}", allowed=f"{wanted}")
        return predicted

    @property
    def _asked(self) -> Config:
        return {"settings": dict(self.settings)}

    def to_bytes(self, model: Array) -> bytes:
        """Canonical bytes of the coefficients (`haina.artifact`)."""
        self.model.layout.check(model)
        return self.model.layout.to_bytes(model)

    def from_bytes(self, data: bytes) -> Array:
        """The inverse of `to_bytes`."""
        return self.model.layout.from_bytes(data)

    def describe(self) -> Mapping[str, Any]:
        """Kind and the names of the coefficients."""
        return {"kind": self.name, "parameters": self.model.length, "coefficients": list(self.model.names)}


def _flat(x: Array) -> Array:
    return x.reshape(len(x), -1)
