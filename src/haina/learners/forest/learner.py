"""ForestLearner: each client grows a random forest, and the forests are collected into one that votes (Breiman 2001, "Random Forests").

Trees are grown by scikit-learn, or in R, and leave the client as JSON (`haina.learners.forest.document`); predicting needs neither scikit-learn nor
Python. One round is enough: `haina.strategy.server.merge.Merge(learner.merge)` makes the union of the forests the model.

The trap is disclosure. A tree tells thresholds between two rows' values and what its leaves hold, so leaves are not smaller than `min_leaf`
rows; and what a forest remembers of each row (outcome, prediction, votes) never leaves. Out-of-bag diagnosis goes up as counts, and only
counts >= `min_cell`.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np

from haina.artifact import Array
from haina.errors import DataError, LayoutError, LearnerError
from haina.learners.disclosure import FEWEST, too_few, unusable
from haina.learners.forest.columns import Names
from haina.learners.forest.document import merge, read, write
from haina.learners.forest.trees import RULES, Forest, Forests, grown
from haina.learners.learner import Metrics, Work, client_rng, refuse_examples
from haina.report import Report
from haina.strategy.parts import Payload
from haina.update import Result, Update, Vector


@dataclass(frozen=True)
class ForestLearner:
    """A random forest.

    Args:
        kind: `classification` (outcomes 0 ... classes - 1) or `regression`.
        features: number of features, >= 1.
        classes: number of classes, >= 2; 0 for regression. All clients agree on it; a client may lack some.
        trees: trees of each client, >= 1.
        max_features: features tried at a split: a number, a share in (0, 1), "sqrt", or None for all. R calls it mtry.
        min_leaf: fewest rows in a leaf, >= 1.
        max_depth: longest way from root to leaf; None for no limit.
        min_cell: fewest rows behind a number of the diagnosis, >= 1.
        names: what the features and classes are called; R's trees are grown with names, and need them. May be left empty.
    """

    payload: ClassVar[Payload] = Payload.COLLECT
    kind: Literal["classification", "regression"]
    features: int
    classes: int = 0
    trees: int = 100
    max_features: int | float | Literal["sqrt"] | None = "sqrt"
    min_leaf: int = 5
    max_depth: int | None = None
    min_cell: int = 10
    names: Names = field(default_factory=Names)

    def __post_init__(self) -> None:
        tried, regression = self.max_features, self.kind == "regression"
        usable = tried is None or tried == "sqrt"
        if isinstance(tried, int):
            usable = 1 <= tried <= self.features
        elif isinstance(tried, float):
            usable = 0 < tried < 1
        allowed = (
            ("kind", self.kind in ("classification", "regression"), "classification or regression"),
            ("features", self.features >= 1, "an integer >= 1"),
            (
                "classes",
                self.classes == 0 if regression else self.classes >= 2,
                "0 for regression, else >= 2",
            ),
            ("trees", self.trees >= 1, "an integer >= 1"),
            ("max_features", usable, f"1 to {self.features}, a share in (0, 1), 'sqrt' or None"),
            ("min_leaf", self.min_leaf >= 1, "an integer >= 1"),
            ("max_depth", self.max_depth is None or self.max_depth >= 1, "an integer >= 1, or None"),
            ("min_cell", self.min_cell >= 1, "an integer >= 1"),
        )
        for name, holds, words in allowed:
            if not holds:
                raise LearnerError(f"{name} is {getattr(self, name)!r}", allowed=words)
        try:
            self.names.check(self.classes, self.features)
        except LayoutError as error:
            raise LearnerError(error.what, allowed=error.allowed) from error

    @property
    def personal(self) -> None:
        """Nothing stays with a client."""

    @property
    def update_size(self) -> None:
        """Documents have any length."""
        return None

    def initial(self, seed: int) -> Array:
        """The document without trees, as uint8; it predicts equal probabilities, or 0."""
        return _vector(write(Forests(self.classes, self.features, names=self.names)))

    def train(self, work: Work) -> Iterator[Result]:
        """The forest of each client, as uint8 bytes, or why it sends none: fewer than 10 rows, or rows that cannot be used.

        The received model is not looked at. `report.extra` holds the out-of-bag diagnosis: `confusion/i/j`, rows of class i voted class j, or
        `oob_mse` for regression.

        Raises:
            LearnerError: scikit-learn is not installed, or single examples shall be protected.
        """
        refuse_examples(work.training, "forest")
        for k, client in enumerate(work.shards.clients):
            x, y = work.shards.of(k)
            silent = too_few(client, len(x), FEWEST)
            if silent is not None:
                yield silent
                continue
            seed = int(client_rng(work.seed, work.round, client).integers(2**31))
            try:
                document, extra = self._grow(x, y, seed)
            except DataError as error:
                yield unusable(client, error)
                continue
            yield Update(client, _vector(write(document)), Report(len(x), extra=extra))

    def _grow(self, x: Array, y: Array, seed: int) -> tuple[Forests, dict[str, float]]:
        try:
            from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
        except ImportError as error:
            raise LearnerError(
                "scikit-learn is not installed", remedy="pip install 'haina[sklearn]'"
            ) from error
        x, y = self._rows(x), self._outcomes(y)
        grower = (RandomForestClassifier if self.classes else RandomForestRegressor)(
            n_estimators=self.trees,
            max_features=self.max_features,
            min_samples_leaf=self.min_leaf,
            max_depth=self.max_depth,
            oob_score=True,
            random_state=seed,
            n_jobs=1,
        )
        with warnings.catch_warnings():
            # With few trees some rows are in every bag; they are left out of the diagnosis below.
            warnings.simplefilter("ignore")
            grower.fit(x, y)
        held = [int(c) for c in grower.classes_] if self.classes else [0]
        trees = []
        for member in grower.estimators_:
            tree = member.tree_
            votes = np.zeros((tree.node_count, self.classes or 1))
            votes[:, held] = tree.value[:, 0, :]
            if self.classes:
                votes /= votes.sum(axis=1, keepdims=True)
            trees.append(grown(tree.children_left, tree.children_right, tree.feature, tree.threshold, votes))
        importance = np.asarray(grower.feature_importances_, np.float64)
        forest = Forest("scikit-learn", RULES[0], bool(self.classes), len(x), importance, tuple(trees))
        return Forests(self.classes, self.features, (forest,), self.names), self._diagnosis(grower, y, held)

    def _diagnosis(self, grower: Any, y: Array, held: list[int]) -> dict[str, float]:
        """Out-of-bag errors as numbers over at least `min_cell` rows."""
        if not self.classes:
            seen = np.isfinite(grower.oob_prediction_)
            errors = (grower.oob_prediction_ - y)[seen]
            return {"oob_mse": float(np.mean(errors**2))} if len(errors) >= self.min_cell else {}
        shares = np.asarray(grower.oob_decision_function_).reshape(len(y), -1)
        # A row without a vote has shares NaN; where it is the only class, scikit-learn writes zeros.
        seen = np.nan_to_num(shares).sum(axis=1) > 0
        voted = np.array(held)[shares[seen].argmax(axis=1)] if seen.any() else np.empty(0, np.intp)
        counts = np.zeros((self.classes, self.classes), np.int64)
        np.add.at(counts, (y[seen], voted), 1)
        return {
            f"confusion/{i}/{j}": float(counts[i, j])
            for i, j in np.argwhere(counts >= self.min_cell).tolist()
        }

    def merge(self, documents: list[bytes]) -> bytes:
        """The union of the clients' forests, in order (`haina.strategy.server.merge.Merge`).

        Raises:
            LayoutError: a document that cannot be read, or is not of this learner's features, classes and names.
        """
        return merge(documents, (self.classes, self.features), self.trees, self.names)

    def _read(self, model: Array) -> Forests:
        return read(np.asarray(model, np.uint8).tobytes(), (self.classes, self.features), self.names)

    def importance(self, model: Array) -> Vector:
        """`[features]` mean decrease of impurity over all trees of the model."""
        return self._read(model).importance

    def votes(self, model: Array, x: Array) -> Vector:
        """`[N, classes]` votes (shares of a vote, from soft trees), or `[N, 1]` sums of values; of all trees."""
        return self._read(model).votes(self._rows(x))

    def predict(self, model: Array, x: Array) -> Array:
        """`[N, classes]` shares of the votes, or `[N]` mean values. Ties go to the first class, for `argmax`."""
        forests = self._read(model)
        votes = forests.votes(self._rows(x))
        if not forests.trees:
            votes = np.full((len(x), self.classes), 1.0 / self.classes) if self.classes else votes
        means = votes / max(1, forests.trees)
        return means if self.classes else means[:, 0]

    def evaluate(self, model: Array, x: Array, y: Array) -> Metrics:
        """Loss is the Brier score, mean squared distance of the shares to the outcome (0 to 2; a logarithm would be infinite), or mean squared
        error.

        Raises:
            DataError: no rows, or cells or outcomes that cannot be used.
        """
        if not len(x):
            raise DataError("there are no rows to evaluate on", allowed="at least one row")
        predicted, outcome = self.predict(model, x), self._outcomes(y)
        if not self.classes:
            return Metrics(len(x), float(np.mean((predicted - outcome) ** 2)))
        wanted = np.eye(self.classes)[outcome]
        loss = float(np.mean(np.sum((predicted - wanted) ** 2, axis=1)))
        return Metrics(len(x), loss, float(np.mean(predicted.argmax(axis=1) == outcome)))

    def _rows(self, x: Array) -> Vector:
        rows = np.asarray(x, np.float64)
        if rows.ndim != 2 or rows.shape[1] != self.features:
            raise DataError(f"the features have shape {rows.shape}", allowed=f"(N, {self.features})")
        if not np.isfinite(rows).all():
            raise DataError(
                "a feature is not finite", allowed="finite numbers", remedy="Fill in missing values"
            )
        return rows

    def _outcomes(self, y: Array) -> Array:
        if not self.classes:
            values = np.asarray(y, np.float64)
            if not np.isfinite(values).all():
                raise DataError("an outcome is not finite", allowed="finite numbers")
            return values
        numbers = np.asarray(y).astype(np.int64)
        usable = (numbers == y) & (numbers >= 0) & (numbers < self.classes)
        if not usable.all():
            raise DataError(
                f"an outcome is {y[int(np.argmin(usable))]}", allowed=f"class numbers 0 to {self.classes - 1}"
            )
        return numbers

    def to_bytes(self, model: Array) -> bytes:
        """The JSON document."""
        return write(self._read(model))

    def from_bytes(self, data: bytes) -> Array:
        """The inverse of `to_bytes`; the whole document is checked."""
        model = _vector(data)
        return _vector(write(self._read(model)))

    def describe(self) -> Mapping[str, Any]:
        """Kind of model and how its trees are grown."""
        return {
            "kind": "forest",
            "task": self.kind,
            "features": self.features,
            "classes": self.classes,
            "trees": self.trees,
            "max_features": self.max_features,
            "min_leaf": self.min_leaf,
            "min_cell": self.min_cell,
            **self.names.to_json(),
        }


def _vector(document: bytes) -> Array:
    return np.frombuffer(document, dtype=np.uint8)
