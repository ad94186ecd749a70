"""Origin: where rows come from, and what they look like on a machine that has none, as `[data]` and `[serve]` say it.

A schema is found in three places, in this order: it is handed in (a coordinator hands it to its nodes), `[data]` says enough by its keys, or the rows
of `source` or `sites` can be read here, as a simulation does.

A source that is a folder holds clients already (`haina.data.folder`): nothing of it is read, divided or set aside here.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, cast

import numpy as np

from haina.artifact import Array
from haina.data import folder as clients
from haina.data.dataset import Dataset
from haina.data.federated import Federated, federate
from haina.data.partition import PARTITIONS, NaturalKey, Partition
from haina.data.schema import TABLES, Schema
from haina.data.sources import load
from haina.data.table import Columns, agree_sites, agree_table
from haina.errors import HainaError
from haina.federation.learners import EXACT
from haina.federation.parts import Place, part
from haina.federation.schema import FederationFile

#: The random stream that divides data: apart from all streams of training.
_DATA = 301

#: What to write where a key is missing.
_LINES = {
    "features": 'features = ["age", "sex"]                # every column to predict from, in order',
    "classes": 'classes = ["no", "yes"]                  # every class, in order; none with task = "regression"',
    "shape": "shape = [64]                             # of one row",
    "target": 'target = "died"                          # the column to predict, if rows are a table',
}


@dataclass(frozen=True)
class Origin:
    """Where rows come from.

    Args:
        file: the checked contents of the federation file.
        folder: where relative paths start.
        place: of the file, for messages.
        known: the schema, where it was handed in.
    """

    file: FederationFile
    folder: Path
    place: Place
    known: Schema | None = None

    @cached_property
    def schema(self) -> Schema:
        """What rows look like.

        Raises:
            ConfigError: it was not handed in, `[data]` does not say enough, and no rows can be read here; with the lines to write.
        """
        agreed = self._agreed
        if agreed is not None:
            return agreed
        if self.readable:
            return self._found
        gaps = self._gaps
        raise (self.place / "data").error(
            f"{', '.join(gaps)} missing, and there are no rows here to find out from",
            allowed="a source or sites that can be read here, or columns and classes by name",
            remedy="Write under [data]:\n" + "\n".join(_line(gap) for gap in gaps),
        )

    @cached_property
    def data(self) -> Federated:
        """Clients' rows, test rows and the server's samples, as a simulation divides them."""
        section = self.file.data
        with self._said():
            rows, found = self._read()
            # The rows are read once, whoever asks first.
            vars(self).setdefault("_found", found)
            agreed = self._agreed
            if agreed is not None and (agreed.shape, agreed.classes) != (found.shape, found.classes):
                raise (self.place / "data").error(
                    f"the rows have shape {list(found.shape)} and {len(found.classes or ())} classes",
                    allowed=f"shape {list(agreed.shape)} and the classes {', '.join(agreed.classes or ()) or '(none)'}",
                    remedy="Mend shape or classes, or the rows",
                )
            if isinstance(rows, Federated):
                return rows
            dataset = rows.standardised() if section.standardise else rows
            rng = np.random.default_rng([self.file.seed, _DATA])
            return federate(dataset, self._partition(dataset), rng, test=section.test, held=section.held)

    @property
    def readable(self) -> bool:
        """True when the rows of `source` or `sites` are on this machine."""
        section = self.file.data
        if self._clients is not None:
            return (self._clients / "x.npy").is_file()
        paths = [*(section.sites or {}).values()]
        if section.source is not None and self._is_file(section.source):
            paths.append(section.source)
        return (section.source is not None or bool(section.sites)) and all(
            (self.folder / path).is_file() for path in paths
        )

    def site(self, source: str | Path) -> tuple[Array, Array]:
        """One owner's own rows, encoded by the schema (`Schema.read`).

        Raises:
            DataError: they cannot be read, or do not fit.
            ConfigError: the file asks for means of pooled rows, which no owner has.
        """
        if self.file.data.standardise:
            raise (self.place / "data" / "standardise").error(
                "takes means over all rows of all owners, which nobody has outside a simulation",
                remedy="Scale columns at their owners by agreed numbers, and leave it out",
            )
        return self.schema.read(source, seed=self.file.seed)

    def has_rows(self, name: Literal["test", "held"]) -> bool:
        """True when the coordinator has rows of its own of that kind; without reading them."""
        if getattr(self.file.serve, name) is not None:
            return True
        if self._clients is not None:
            return (self._clients / f"{name}_x.npy").is_file()
        return self.readable and getattr(self.file.data, name) > 0

    def aside(self, name: Literal["test", "held"]) -> tuple[Array, Array]:
        """The coordinator's own rows: from the file that `[serve]` names, or as a simulation sets them aside; none where neither can be."""
        path: str | None = getattr(self.file.serve, name)
        if path is not None:
            try:
                return self.site(self.folder / path if self._is_file(path) else path)
            except HainaError as error:
                place = self.place / "serve" / name
                raise place.error(error.what, allowed=error.allowed, remedy=error.remedy) from error
        if self.readable:
            return cast(tuple[Array, Array], getattr(self.data, name))
        return np.empty((0, *self.schema.shape), self.schema.dtype), np.empty(0, np.int64)

    @property
    def _dtype(self) -> Literal["float32", "float64"]:
        # Exact statistics keep every digit of the table; networks compute in float32.
        return "float64" if self.file.model.learner in EXACT else "float32"

    @cached_property
    def _found(self) -> Schema:
        with self._said():
            return self._read()[1]

    @cached_property
    def _agreed(self) -> Schema | None:
        """The schema that needs no rows."""
        if self.known is not None or self._gaps:
            return self.known
        section = self.file.data
        with self._said():
            if section.shape is None:
                return Schema.table(self._columns(), self._dtype)
            classes = tuple(section.classes) if section.task == "classification" else None
            names = tuple(section.features)
            if not names and len(section.shape) == 1:
                names = tuple(f"x{j}" for j in range(section.shape[0]))
            return Schema(tuple(section.shape), names, classes, self._dtype)

    @property
    def _gaps(self) -> list[str]:
        """Keys of `[data]` without which it does not say what rows look like."""
        section = self.file.data
        if section.shape is not None and section.target is not None:
            raise (self.place / "data" / "shape").error(
                "is of rows that come as arrays, and target names a column of a table", remedy="Leave one out"
            )
        gaps = []
        if section.shape is None and section.target is None:
            table = section.sites is not None or Path(section.source or "").suffix.lower() in TABLES
            gaps.append("target" if table else "shape (or target)")
        if section.shape is None and not section.features and gaps != ["shape (or target)"]:
            gaps.append("features")
        if section.task == "classification" and not section.classes:
            gaps.append("classes")
        return gaps + [f"categorical.{name}" for name, levels in section.categorical.items() if not levels]

    def _read(self) -> tuple[Dataset | Federated, Schema]:
        """All rows, or all clients where they lie divided, and the schema that they show."""
        section = self.file.data
        if (section.source is None) == (section.sites is None):
            raise (self.place / "data").error(
                "names no data, or names them twice", allowed="either source or sites"
            )
        if self._clients is not None:
            self._refuse_settings()
            mapped = clients.read(self._clients)
            shape = tuple(mapped.clients.x.shape[1:])
            return mapped, Schema(shape, mapped.features, mapped.classes, self._dtype)
        columns: Columns | None = None
        if section.sites is not None:
            sites = {name: self.folder / path for name, path in section.sites.items()}
            dataset, columns = agree_sites(sites, self._columns())
        else:
            source = cast(str, section.source)
            path = self.folder / source if self._is_file(source) else source
            if Path(source).suffix.lower() in TABLES:
                dataset, columns = agree_table(path, self._columns())
            else:
                dataset = load(str(path), seed=self.file.seed)
        dataset = dataset if self._dtype == "float64" else dataset.in_float32()
        return dataset, Schema.of(dataset, columns, self._dtype)

    @property
    def _clients(self) -> Path | None:
        """The folder of clients that `source` names, if it names one."""
        source = self.file.data.source
        if source is None or not (source.endswith("/") or (self.folder / source).is_dir()):
            return None
        return self.folder / source

    def _refuse_settings(self) -> None:
        section = self.file.data
        kinds = {"shape", "features", "classes", "task"} if section.shape is not None else set()
        for name in sorted(section.model_fields_set - kinds - {"source"}):
            raise (self.place / "data" / name).error(
                "has no meaning where source is a folder, whose clients are taken as they lie",
                allowed="source alone, or with shape, features, classes and task",
                remedy="Leave it out; test and held rows are test_x.npy, test_y.npy, held_x.npy and held_y.npy in the folder",
            )

    @staticmethod
    def _is_file(source: str) -> bool:
        return Path(source).suffix.lower() in {*TABLES, ".npz"}

    def _partition(self, dataset: Dataset) -> Partition:
        section, place = self.file.data, self.place / "data" / "partition"
        if section.partition is not None:
            return cast(Partition, part(section.partition, PARTITIONS, place))
        if dataset.groups is not None:
            return NaturalKey(dataset.key)
        raise place.error(
            "is missing, and the data have no natural key to divide them by",
            allowed='for example {dirichlet = 0.3, clients = 30} or {iid = 10}; for a table, groups = "hospital" beside it',
        )

    def _columns(self) -> Columns:
        section = self.file.data
        if section.target is None:
            raise (self.place / "data" / "target").error(
                "is missing", allowed="the name of the column to predict"
            )
        return Columns(
            target=section.target,
            task=section.task,
            features=tuple(section.features),
            groups=section.groups,
            categorical={name: tuple(levels) for name, levels in section.categorical.items()},
            classes=tuple(section.classes),
            missing=section.missing,
        )

    @contextmanager
    def _said(self) -> Iterator[None]:
        """Errors in here name file and section."""
        try:
            yield
        except HainaError as error:
            if error.what.startswith(self.place.file):
                raise
            place = self.place / "data"
            raise place.error(error.what, allowed=error.allowed, remedy=error.remedy) from error


def _line(gap: str) -> str:
    if gap.startswith("categorical."):
        return f'categorical = {{{gap.removeprefix("categorical.")} = ["F", "M"]}}   # every level, in order'
    if gap == "shape (or target)":
        return _LINES["shape"] + ", if rows are arrays; or\n" + _LINES["target"] + "\n" + _LINES["features"]
    return _LINES[gap]
