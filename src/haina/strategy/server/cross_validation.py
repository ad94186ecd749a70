"""Cross-validated elastic net on summed statistics: all folds, and many penalties, in the same few rounds.

The rows of each site are dealt into K folds. Fit k leaves fold k out at every site; fit 0 leaves out none. All are needed for each lambda, and one
after the other they would take hundreds of rounds. But each is a proximal Newton fit of its own (`haina.strategy.server.elastic_net`), and a round
can ask for the sums at many points at once: so all fits of all lambdas move together, from the null model of their own rows, and a whole
cross-validation takes about as many rounds as its slowest fit, ten or less. Where that would make an update too long, lambdas go in blocks
(`together`), each from the solutions of the one before.

The error of a fold is its mean deviance at the fit that left it out. As in glmnet's `cv.glmnet` (Friedman, Hastie & Tibshirani 2010, sec. 6): with
weights n_k / n, `cvm` is the weighted mean over folds and `cvsd` its standard error, sqrt(weighted mean of squares / (K - 1)); `lambda.min` is the
largest lambda whose cvm is least, `lambda.1se` the largest whose cvm is at most that plus its cvsd.

The traps: every fit has column scales of its own rows, and for gaussian outcomes its own sd(y); lambdas are those of fit 0 for all (`cv.glmnet(...,
lambda = fit$lambda)`; without a given lambda it lets each fold make its own and interpolates).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from haina.artifact import Array
from haina.errors import LayoutError, StrategyError
from haina.strategy.families import family
from haina.strategy.parts import Aggregate, Payload, State, Stepped
from haina.strategy.server.elastic_net import ElasticNetPath, Quadratic
from haina.strategy.server.newton import HALVINGS, Status, null_model, rises
from haina.strategy.sums import Sums
from haina.update import Vector

#: Numbers in an update that lambdas are put together up to.
ROOM = 1 << 20


@dataclass(frozen=True)
class Points:
    """How the points of a round lie in a model's vector, and their answers in an update's.

    Args:
        folds: K, >= 2.
        together: lambdas of one block, B.
        p: coefficients.
    """

    folds: int
    together: int
    p: int

    @classmethod
    def fitting(cls, folds: int, n_lambda: int, p: int) -> Points:
        """As many lambdas together as an update has room for."""
        room = ROOM // ((folds + 1) * (Sums.size(p) + 2))
        return cls(folds, max(1, min(n_lambda, room)), p)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of the points: fits, lambdas, coefficients."""
        return self.folds + 1, self.together, self.p

    @property
    def size(self) -> int:
        """Length of a model: K + 1 fits by B lambdas by p coefficients."""
        return (self.folds + 1) * self.together * self.p

    @property
    def answers(self) -> tuple[int, int, int]:
        """Of an update: fits, lambdas, packed sums of the rows that the fit sees and deviance and number of the rows that it does not."""
        return self.folds + 1, self.together, Sums.size(self.p) + 2


@dataclass(frozen=True)
class CrossValidation:
    """An elastic-net path with the error of each lambda; the final model holds the coefficients of `lambda.min` at every point.

    Args:
        points: the shape of a round.
        path: family, alpha, lambdas and whether columns are standardised.
        tolerance: length of the last step of each fit in standard errors, > 0.
        max_rounds: rounds for one block of lambdas before it is stopped, >= 2.

    What it remembers: `lambdas` `[L]`, `path` `[K + 1, L, p]`, `deviance` `[L]` of fit 0, `error` `[K, L]` deviance of each fold at the fit that
    left it out, `rows` `[K + 1]` of each fit, `index` (lambdas done), and for each point where it came from and what it cost there.

    Notes of a round: `index`, `open` (fits that still move) and, at the end, `converged`.
    """

    uses_drift: ClassVar[bool] = False
    accepts: ClassVar[Payload] = Payload.SUM
    points: Points
    path: ElasticNetPath = field(default_factory=ElasticNetPath)
    tolerance: float = 1e-7
    max_rounds: int = 60

    def __post_init__(self) -> None:
        if self.points.folds < 2:
            raise StrategyError(f"there are {self.points.folds} folds", allowed="2 or more")

    def init(self, model: Array) -> State:
        """An empty path."""
        fits, together, p = self.points.shape
        length = self.path.n_lambda if self.path.lambdas is None else len(self.path.lambdas)
        return {
            "lambdas": np.full(length, np.nan),
            "path": np.full((fits, length, p), np.nan),
            "deviance": np.full(length, np.nan),
            "error": np.full((fits - 1, length), np.nan),
            "rows": np.zeros(fits),
            "index": np.array(0),
            "scale": np.ones((fits, p - 1)),
            "null_deviance": np.full(fits, np.nan),
            "anchor": np.zeros((fits, together, p)),
            "anchor_deviance": np.full((fits, together), np.nan),
            "halvings": np.zeros((fits, together), np.int64),
            "rounds": np.array(0),
            "status": np.array(int(Status.STARTING)),
        }

    def control(self, state: State) -> Array | None:
        """Clients add nothing."""
        return None

    def step(self, model: Array, aggregate: Aggregate, state: State) -> Stepped:
        """Move every fit on by one round.

        Raises:
            RoundError: no outcome varies.
            LayoutError: the sums belong to other points.
        """
        fits, together, size = self.points.answers
        if aggregate.vector.shape != (fits * together * size,):
            raise LayoutError(
                f"the sums have shape {aggregate.vector.shape}", allowed=f"({fits * together * size},)"
            )
        answers = np.asarray(aggregate.vector, np.float64).reshape(fits, together, size)
        at = np.asarray(model, np.float64).reshape(self.points.shape)
        sums = [[Sums.unpack(one[:-2], self.points.p) for one in fit] for fit in answers]
        if state["status"] == Status.STARTING:
            return self._start(at, sums, state)
        return self._move(at, sums, answers[:, :, -2], answers[:, 0, -1], state)

    def _start(self, at: Vector, sums: list[list[Sums]], state: State) -> Stepped:
        law, fits = family(self.path.family), len(sums)
        nulls = np.array([null_model(fit[0], law, intercept=True) for fit in sums])
        if not np.allclose(at[:, 0], nulls, rtol=1e-12, atol=0):
            return Stepped(np.repeat(nulls[:, None], self.points.together, axis=1).ravel(), state)
        begun = [self.path.begin(fit[0]) for fit in sums]
        memory = dict(state) | {
            "lambdas": begun[0]["lambdas"],
            "scale": np.array([one["scale"] for one in begun]),
            "null_deviance": np.array([float(one["null_deviance"]) for one in begun]),
            "rows": np.array([fit[0].examples for fit in sums]),
            "status": np.array(int(Status.FITTING)),
        }
        quadratics = [Quadratic(at[k, 0], sums[k][0], memory["scale"][k]) for k in range(fits)]
        return self._block(quadratics, [fit[0].deviance for fit in sums], memory)

    def _block(
        self, quadratics: list[Quadratic], deviances: list[float], memory: dict[str, Array]
    ) -> Stepped:
        """First points of the block of lambdas that begins at `index`, each fit from one quadratic model down the block."""
        fits, together, p = self.points.shape
        at = np.empty((fits, together, p))
        for k, quadratic in enumerate(quadratics):
            new = quadratic.point
            for b in range(together):
                new = quadratic.minimum(new, *self._weights(memory, k, b))
                at[k, b] = new
        memory |= {
            "anchor": np.repeat(np.array([q.point for q in quadratics])[:, None], together, axis=1),
            "anchor_deviance": np.repeat(np.array(deviances)[:, None], together, axis=1),
            "halvings": np.zeros((fits, together), np.int64),
            "rounds": np.array(0),
        }
        return Stepped(at.ravel(), memory, notes={"index": float(memory["index"])})

    def _move(
        self, at: Vector, sums: list[list[Sums]], held: Vector, held_rows: Vector, state: State
    ) -> Stepped:
        fits, together, _ = self.points.shape
        law = family(self.path.family)
        memory = {name: np.array(array) for name, array in state.items()}
        # Where rows came or went, what was reached is compared with nothing.
        same = np.array_equal(memory["rows"], [fit[0].examples for fit in sums])
        memory["rows"] = np.array([fit[0].examples for fit in sums])
        new, opened = np.empty_like(at), 0
        last: list[Quadratic] = []
        for k in range(fits):
            for b in range(together):
                one, halvings = sums[k][b], int(memory["halvings"][k, b])
                if same and halvings < HALVINGS and self._rose(at[k, b], one, memory, k, b):
                    new[k, b] = (memory["anchor"][k, b] + at[k, b]) / 2
                    memory["halvings"][k, b] += 1
                    opened += 1
                    continue
                quadratic = Quadratic(at[k, b], one, memory["scale"][k])
                new[k, b] = quadratic.minimum(at[k, b], *self._weights(memory, k, b))
                # A gaussian model is its own quadratic: its first step is its last.
                if not law.dispersed and quadratic.distance(new[k, b]) > self.tolerance:
                    opened += 1
                memory["anchor"][k, b], memory["anchor_deviance"][k, b] = at[k, b], one.deviance
                memory["halvings"][k, b] = 0
                if b == together - 1:
                    last.append(quadratic)
        memory["rounds"] += 1
        notes = {"index": float(memory["index"]), "open": float(opened)}
        if opened:
            stopped = memory["rounds"] >= self.max_rounds
            if not stopped:
                return Stepped(new.ravel(), memory, notes=notes)
            return self._end(memory, Status.STOPPED, notes)
        index, length = int(memory["index"]), len(memory["lambdas"])
        block = slice(index, min(index + together, length))
        width = block.stop - block.start
        memory["path"][:, block] = new[:, :width]
        memory["deviance"][block] = [one.deviance for one in sums[0][:width]]
        memory["error"][:, block] = held[1:, :width] / held_rows[1:, None]
        ended, done = self._ended(memory, block.stop)
        memory["index"] = np.array(done)
        if ended or done == length:
            return self._end(memory, Status.CONVERGED, notes)
        return self._block(last, [fit[-1].deviance for fit in sums], memory)

    def _ended(self, memory: dict[str, Array], reached: int) -> tuple[bool, int]:
        """Whether glmnet would end a path of its own making here, and how many lambdas are then kept."""
        null = float(memory["null_deviance"][0])
        for done in range(int(memory["index"]) + 1, reached + 1):
            if self.path.explained(memory["deviance"][:done], null):
                return True, done
        return False, reached

    def _end(self, memory: dict[str, Array], status: Status, notes: dict[str, float]) -> Stepped:
        memory["status"] = np.array(int(status))
        done = int(memory["index"])
        best = memory["path"][0, choose(memory).least] if done else memory["anchor"][0, 0]
        model = np.broadcast_to(best, self.points.shape).ravel().copy()
        return Stepped(
            model, memory, finished=True, notes=notes | {"converged": float(status is Status.CONVERGED)}
        )

    def _weights(self, memory: dict[str, Array], k: int, b: int) -> tuple[float, float]:
        own = {
            "lambdas": memory["lambdas"],
            "null_deviance": memory["null_deviance"][k],
            "examples": memory["rows"][k],
        }
        return self.path.weights(own, min(int(memory["index"]) + b, len(memory["lambdas"]) - 1))

    def _rose(self, at: Vector, sums: Sums, memory: dict[str, Array], k: int, b: int) -> bool:
        l1, l2 = self._weights(memory, k, b)
        scale = memory["scale"][k]

        def objective(point: Vector, deviance: float) -> float:
            columns = np.where(scale > 0, point[1:] / np.where(scale > 0, scale, 1.0), 0.0)
            penalty = l1 * float(np.abs(columns).sum()) + l2 / 2 * float(columns @ columns)
            return deviance / 2 + sums.examples * penalty

        before = objective(memory["anchor"][k, b], float(memory["anchor_deviance"][k, b]))
        return rises(before, objective(at, sums.deviance))


@dataclass(frozen=True)
class Choice:
    """Errors of a path and what is chosen by them.

    Args:
        mean: `[L]` cvm, mean deviance of rows that were left out.
        error: `[L]` cvsd, its standard error.
        least: position of lambda.min.
        sparest: position of lambda.1se.
    """

    mean: Vector
    error: Vector
    least: int
    sparest: int


def choose(state: State) -> Choice:
    """What `cv.glmnet` would choose, from what `CrossValidation` remembers; lambdas fall, so the first of equals is the largest."""
    done = int(state["index"])
    errors, n = state["error"][:, :done], float(state["rows"][0])
    folds = (n - state["rows"][1:])[:, None] / n
    mean = (folds * errors).sum(axis=0)
    spread = np.sqrt((folds * (errors - mean) ** 2).sum(axis=0) / (len(errors) - 1))
    least = int(np.argmin(mean))
    sparest = int(np.flatnonzero(mean <= mean[least] + spread[least])[0])
    return Choice(mean, spread, least, sparest)
