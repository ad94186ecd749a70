"""Analysis: one exact statistic over the tables of some sites, as `haina stats` asks for it.

The same learner and strategy as in a federation of real sites, in one process: what is printed here is what they would be told. Each file is a
site.

Columns of text, and of TRUE and FALSE, are factors by themselves, with the levels of all files together, in the order of their letters' code points
(R's order in the C locale). Rows in which a column that is used is missing are left out and counted, as R's `na.omit` does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from haina.artifact import Array
from haina.data.dataset import factorise, in_order
from haina.data.federated import Federated
from haina.data.files import read_frame
from haina.data.schema import Schema
from haina.data.table import Columns
from haina.errors import ConfigError, DataError, RunError
from haina.federation.learners import LEARNERS
from haina.federation.made import Finding, Made
from haina.federation.parts import Place, build
from haina.learners.learner import Training
from haina.shards import Shards
from haina.simulation.simulation import Simulation
from haina.strategy.record import Outcome, Verdict

if TYPE_CHECKING:
    import pandas as pd

#: Rounds after which an analysis that has not ended never will.
MOST_ROUNDS = 5000


@dataclass(frozen=True)
class Analysis:
    """What was found, and of whom.

    Args:
        finding: the result.
        dropped: site -> rows left out because a value was missing.
        silent: site -> why it took no part.
        rounds: how many it took.
    """

    finding: Finding
    dropped: Mapping[str, int]
    silent: Mapping[str, str]
    rounds: int

    def to_json(self) -> dict[str, Any]:
        """The finding's own values, and what became of sites."""
        about = {"dropped": dict(self.dropped), "silent": dict(self.silent), "rounds": self.rounds}
        return {**self.finding.to_json(), **about}


@dataclass(frozen=True)
class Tables:
    """The tables of some sites.

    Args:
        frames: site -> its table.
        factors: columns that are factors though they hold numbers.
    """

    frames: Mapping[str, pd.DataFrame]
    factors: frozenset[str] = frozenset()

    @classmethod
    def read(cls, files: Sequence[Path], factors: Sequence[str] = ()) -> Tables:
        """Read one file for each site, called by its name.

        Raises:
            ConfigError: there are no files.
            DataError: a file cannot be read.
        """
        if not files:
            raise ConfigError("no sites are named", allowed="--sites a.csv b.csv c.csv")
        names = [path.stem for path in files]
        if len(set(names)) < len(names):
            names = [str(path) for path in files]
        if len(set(names)) < len(names):
            raise ConfigError("a file is named twice", allowed="a file for each site")
        frames = {name: read_frame(path) for name, path in zip(names, files, strict=True)}
        return cls(frames, frozenset(factors))

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """Columns that every table has, in the order of the first."""
        tables = list(self.frames.values())
        return tuple(str(name) for name in tables[0].columns if all(name in one.columns for one in tables))

    def need(self, names: Sequence[str]) -> None:
        """Refuse columns that some table lacks.

        Raises:
            DataError: with the column and the site.
        """
        for name in names:
            for site, frame in self.frames.items():
                if name not in frame.columns:
                    raise DataError(
                        f"{site} has no column {name!r}", allowed=", ".join(map(str, frame.columns))
                    )

    def is_factor(self, name: str) -> bool:
        """True where some table holds text or truth values."""
        return name in self.factors or any(_is_text(frame[name]) for frame in self.frames.values())

    def schema(self, names: Sequence[str], *, complete: bool = True) -> Schema:
        """What rows of these columns look like, with levels of all sites together.

        Args:
            names: of columns that every table has.
            complete: only levels of rows without a gap count.
        """
        levels = {}
        for name in names:
            if self.is_factor(name):
                found: set[str] = set()
                for frame in self.frames.values():
                    kept = frame.dropna(subset=list(names)) if complete else frame.dropna(subset=[name])
                    found |= set(factorise(_cells(kept[name]))[0])
                # Numbers that are made levels go by size, text by its letters.
                levels[name] = in_order(found) if name in self.factors else tuple(sorted(found))
                if not found:
                    raise DataError(f"factor {name!r} has no values", allowed="at least one row without gaps")
        return Schema.table(Columns("", "regression", tuple(names), categorical=levels), "float64")

    def federated(self, schema: Schema, *, complete: bool = True) -> tuple[Federated, dict[str, int]]:
        """Each site's rows, encoded, and how many were left out.

        Args:
            schema: of the columns.
            complete: leave out rows with a gap; else a missing number is NaN and a missing level no level.
        """
        assert schema.columns is not None
        names = list(schema.columns.features)
        parts, dropped = [], {}
        for site, frame in self.frames.items():
            kept = frame[names].dropna() if complete else frame[names]
            dropped[site] = len(frame) - len(kept)
            parts.append(_encoded(site, kept, schema.columns))
        x = np.concatenate(parts) if parts else np.empty((0, len(schema.features)))
        ends = np.cumsum([len(part) for part in parts], dtype=np.int64)
        offsets = np.column_stack([np.concatenate([[0], ends[:-1]]), ends])
        y = np.zeros(len(x))
        none = (x[:0], y[:0])
        return Federated(Shards(tuple(self.frames), x, y, offsets), none, none, schema.features), dropped


def analyse(
    tables: Tables,
    learner: str,
    names: Sequence[str],
    settings: Mapping[str, Any],
    *,
    complete: bool = True,
    seed: int = 0,
) -> Analysis:
    """Run one analysis to its end.

    Args:
        tables: the sites.
        learner: as in a federation file: `glm`, `cox` or `summary`.
        names: columns that are used.
        settings: of the learner, as in a federation file.
        complete: leave out rows with a gap.
        seed: of folds.

    Raises:
        ConfigError: settings that the learner refuses.
        DataError: columns that cannot be used.
        RunError: no site can answer, or what they answer cannot be put together.
    """
    tables.need(names)
    schema = tables.schema(names, complete=complete)
    given = {key: value for key, value in settings.items() if value is not None}
    made = build(LEARNERS[learner](schema, Path()), given, Place("stats", learner))
    assert isinstance(made, Made)
    assert made.strategy is not None
    assert made.found is not None
    data, dropped = tables.federated(schema, complete=complete)
    simulation = Simulation(made.strategy, made.learner(), data, Training(), rounds=MOST_ROUNDS, seed=seed)
    run, silent = simulation.start(), dict[str, str]()
    while not run.finished:
        run, record = simulation.advance(run)
        silent |= {
            one.client: one.reason
            for one in record.clients
            if one.verdict in (Verdict.FAILED, Verdict.REFUSED, Verdict.ABSENT)
        }
        if record.outcome is Outcome.KEPT:
            reasons = "; ".join(f"{site}: {why}" for site, why in silent.items())
            raise RunError(reasons if len(silent) == len(tables.frames) else record.reason or reasons)
        if run.round >= MOST_ROUNDS:
            raise RunError(
                f"the analysis did not end in {MOST_ROUNDS} rounds", remedy="Ask for fewer lambdas"
            )
    return Analysis(made.found(run), {site: n for site, n in dropped.items() if n}, silent, run.round)


def _encoded(site: str, frame: pd.DataFrame, columns: Columns) -> Array:
    pieces: list[Array] = []
    for name in columns.features:
        levels = columns.categorical.get(name)
        if levels is None:
            values = frame[name].to_numpy(dtype=np.float64, na_value=np.nan)
            if np.isinf(values).any():
                raise DataError(f"{site}: column {name!r} holds an infinite number", allowed="finite numbers")
            pieces.append(values[:, None])
            continue
        there = frame[name].notna().to_numpy()
        block = np.zeros((len(frame), len(levels)))
        if there.any():
            texts, codes = factorise(_cells(frame[name][there]))
            place = np.array([levels.index(text) for text in texts])
            block[np.flatnonzero(there), place[codes]] = 1.0
        pieces.append(block)
    return np.concatenate(pieces, axis=1)


def _is_text(cells: pd.Series) -> bool:
    from pandas.api.types import is_bool_dtype, is_numeric_dtype

    # A column of gaps alone is no text, whatever the reader took it for.
    return bool(cells.notna().any()) and (is_bool_dtype(cells.dtype) or not is_numeric_dtype(cells.dtype))


def _cells(cells: pd.Series) -> Array:
    """Values of a factor; truth values as R writes them."""
    held = cells.to_numpy()
    if held.dtype.kind in "bO":
        words = ("FALSE", "TRUE")
        return np.array(
            [words[int(cell)] if isinstance(cell, bool | np.bool_) else str(cell) for cell in held]
        )
    if held.dtype.kind in "fiuU":
        return held
    return np.array([str(cell) for cell in held])
