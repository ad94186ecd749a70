"""Federation: a federation file made into typed objects, ready to simulate (and to serve).

The same file and the same objects run in simulation and in deployment. Nothing here computes; it only puts parts together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np

from haina.data.dataset import Dataset
from haina.data.federated import Federated, federate
from haina.data.partition import PARTITIONS, NaturalKey, Partition
from haina.data.sources import load as load_source
from haina.data.table import Columns, read_sites
from haina.errors import ConfigError, HainaError
from haina.federation.learners import EXACT, LEARNERS, Made
from haina.federation.names import CLIPS, COMBINERS, FACTORS, SCHEDULES, SELECTORS, SERVERS
from haina.federation.parts import Place, build, did_you_mean, part, parts
from haina.federation.schema import FederationFile, Part, parse
from haina.learners.learner import Learner, Training
from haina.simulation.attack import Attack
from haina.simulation.attacks import ATTACKS
from haina.simulation.faults import Dropout, Stragglers
from haina.simulation.simulation import Run, Simulation
from haina.strategy.combine import Nova
from haina.strategy.local import Local
from haina.strategy.presets import PRESETS
from haina.strategy.strategy import Strategy
from haina.strategy.trust import Trust
from haina.strategy.weigh import Weigh

#: The random stream that divides data: apart from all streams of training.
_DATA = 301


@dataclass(frozen=True)
class Federation:
    """One federation file.

    Args:
        text: the file as written; a run keeps a copy.
        file: what it is called in messages.
        folder: where relative paths and `build = "task:..."` start from.
        settings: the checked contents.
    """

    text: str
    file: str
    folder: Path
    settings: FederationFile

    @classmethod
    def of(cls, text: str, file: str = "federation.toml", folder: str | Path = ".") -> Federation:
        """Read the text of a federation file.

        Raises:
            ConfigError: naming file, key, value and what is allowed.
        """
        return cls(text, file, Path(folder), parse(text, file))

    @classmethod
    def read(cls, path: str | Path) -> Federation:
        """Read a federation file.

        Raises:
            ConfigError: the file is missing or not UTF-8, or as for `of`.
        """
        path = Path(path)
        try:
            text = path.read_text(encoding="utf-8")
        except (FileNotFoundError, NotADirectoryError) as error:
            raise ConfigError(
                f"there is no file {path}",
                remedy="Check the path, or make a project with: haina new NAME",
            ) from error
        except (UnicodeDecodeError, IsADirectoryError, PermissionError) as error:
            raise ConfigError(f"{path} cannot be read as text: {error}") from error
        return cls.of(text, path.name, path.parent)

    def check_same(self, started: Federation) -> None:
        """Refuse to go on with a run that was started from other words; only the number of rounds may have changed.

        Raises:
            ConfigError: naming the first setting that differs.
        """
        now, then = (_flat(federation.settings.model_dump()) for federation in (self, started))
        for key in sorted({*now, *then} - {"train.rounds"}):
            if now.get(key) != then.get(key):
                raise Place(self.file, key).error(
                    f"is {now.get(key)!r}, and the run was started with {then.get(key)!r}",
                    allowed="another number of rounds, and nothing else",
                    remedy="Put it back, or start a new run (--overwrite, or --out another folder)",
                )

    @property
    def name(self) -> str:
        """What the federation is called."""
        return self.settings.name

    @property
    def seed(self) -> int:
        """The one seed."""
        return self.settings.seed

    @cached_property
    def data(self) -> Federated:
        """Clients' rows, test rows and the server's samples."""
        section, place = self.settings.data, self._place / "data"
        if (section.source is None) == (section.sites is None):
            raise place.error("names no data, or names them twice", allowed="either source or sites")
        try:
            dataset = self._dataset()
            # Exact statistics keep every digit of the table; networks compute in float32.
            dataset = dataset if self.settings.model.learner in EXACT else dataset.in_float32()
            if section.standardise:
                dataset = dataset.standardised()
            rng = np.random.default_rng([self.seed, _DATA])
            return federate(dataset, self._partition(dataset), rng, test=section.test, held=section.held)
        except HainaError as error:
            if error.what.startswith(self.file):
                raise
            raise place.error(error.what, allowed=error.allowed, remedy=error.remedy) from error

    def _dataset(self) -> Dataset:
        section, place = self.settings.data, self._place / "data"
        if section.sites is not None:
            sites = {name: self.folder / path for name, path in section.sites.items()}
            return read_sites(sites, self._columns(place))
        source = cast(str, section.source)
        suffix = Path(source).suffix.lower()
        columns = self._columns(place) if suffix in {".csv", ".parquet"} else None
        path = self.folder / source if suffix in {".csv", ".parquet", ".npz"} else source
        return load_source(str(path), columns=columns, seed=self.seed)

    def _partition(self, dataset: Dataset) -> Partition:
        section, place = self.settings.data, self._place / "data" / "partition"
        if section.partition is not None:
            return cast(Partition, part(section.partition, PARTITIONS, place))
        if dataset.groups is not None:
            return NaturalKey(dataset.key)
        raise place.error(
            "is missing, and the data have no natural key to divide them by",
            allowed='for example {dirichlet = 0.3, clients = 30} or {iid = 10}; for a table, groups = "hospital" beside it',
        )

    def _columns(self, place: Place) -> Columns:
        section = self.settings.data
        if section.target is None:
            raise (place / "target").error("is missing", allowed="the name of the column to predict")
        return Columns(
            target=section.target,
            task=section.task,
            features=tuple(section.features),
            groups=section.groups,
            categorical={name: tuple(levels) for name, levels in section.categorical.items()},
            classes=tuple(section.classes),
            missing=section.missing,
        )

    @cached_property
    def _made(self) -> Made:
        place, model = self._place / "model", self.settings.model
        make = LEARNERS.get(model.learner)
        if make is None:
            raise (place / "learner").error(
                f"{model.learner!r} is not known",
                allowed=", ".join(sorted(LEARNERS)),
                remedy=did_you_mean(model.learner, LEARNERS),
            )
        return cast(Made, build(make(self.data, self.folder), dict(model.model_extra or {}), place))

    @property
    def learner(self) -> Learner:
        """The home of local training."""
        return self._made.learner

    @property
    def tell(self) -> Callable[[Run], str] | None:
        """What an exact learner says of a finished run; None for the others."""
        return self._made.tell

    @cached_property
    def training(self) -> Training:
        """How clients train."""
        train = self.settings.train
        return Training(
            epochs=train.epochs,
            steps=train.steps,
            batch_size=train.batch_size,
            momentum=train.momentum,
            weight_decay=train.weight_decay,
            clip_norm=train.clip_norm,
            measure=frozenset(train.measure),
        )

    @cached_property
    def strategy(self) -> Strategy:
        """The five steps: the learner's own method, or a preset, with the parts given one by one put in their places."""
        section, place = self.settings.strategy, self._place / "strategy"
        own = self._made.strategy
        if own is not None:
            given = {name for name, value in section.model_dump().items() if value is not None}
            if given:
                raise (place / sorted(given)[0]).error(
                    f"the learner {self.settings.model.learner!r} brings its own strategy: its results are exact sums or collected trees, "
                    "which no weighting or robust rule may change",
                    remedy="Leave [strategy] out",
                )
            return own
        base = (
            part(section.preset, PRESETS, place / "preset")
            if section.preset is not None
            else PRESETS["fedavg"]()
        )
        changes: dict[str, Any] = {}
        if section.clip is not None:
            changes["clip"] = part(section.clip, CLIPS, place / "clip")
        if section.trust is not None:
            changes["trust"] = build(Trust, section.trust, place / "trust")
        if section.weigh is not None or section.cap is not None or section.quality_clip is not None:
            changes["weigh"] = self._weigh(base.weigh, place)
        for key, registry in (("combine", COMBINERS), ("server", SERVERS), ("select", SELECTORS)):
            value: Part | None = getattr(section, key)
            if value is not None:
                changes[key] = part(value, registry, place / key)
        if changes:
            changes["name"] = (
                "custom" if section.preset is None else f"{base.name} with own {', '.join(changes)}"
            )
        rate = self.settings.train.learning_rate
        rate_place = self._place / "train" / "learning_rate"
        changes["rate"] = part({"constant": rate} if isinstance(rate, float) else rate, SCHEDULES, rate_place)
        try:
            if self.settings.train.proximal is not None:
                changes["local"] = Local(self.settings.train.proximal, base.local.control)
                if isinstance(base.combine, Nova) and self.settings.train.proximal > 0:
                    changes.setdefault("combine", Nova("steps"))
            return cast(Strategy, replace(base, **changes))
        except HainaError as error:
            raise place.error(error.what, allowed=error.allowed, remedy=error.remedy) from error

    def _weigh(self, base: Weigh, place: Place) -> Weigh:
        section = self.settings.strategy
        settings: dict[str, Any] = {}
        if section.weigh is not None:
            settings["factors"] = parts(section.weigh, FACTORS, place / "weigh")
        if section.quality_clip is not None:
            settings["clip"] = section.quality_clip
        if section.cap is not None:
            settings["cap"] = None if section.cap == "none" else section.cap
        try:
            return replace(base, **settings)
        except HainaError as error:
            raise (place / "weigh").error(error.what, allowed=error.allowed, remedy=error.remedy) from error

    @cached_property
    def attack(self) -> Attack | None:
        """What hostile clients do in simulation."""
        value, place = self.settings.simulation.attack, self._place / "simulation" / "attack"
        if value is None:
            return None
        return cast(Attack, part(value, ATTACKS, place))

    def simulation(self) -> Simulation:
        """The federation as a simulation."""
        train, faults = self.settings.train, self.settings.simulation
        simulation = Simulation(
            strategy=self.strategy,
            learner=self.learner,
            data=self.data,
            training=self.training,
            rounds=train.rounds,
            cohort=train.clients_per_round,
            seed=self.seed,
            attack=self.attack,
            dropout=Dropout(faults.dropout),
            stragglers=Stragglers(faults.stragglers),
            evaluate_every=train.evaluate_every,
        )
        if self.strategy.needs_judge and not len(self.data.held[1]):
            raise (self._place / "data" / "held").error(
                f"strategy {self.strategy.name!r} judges updates on samples held by the server, and there are none",
                allowed="a number of rows, for example held = 50",
                remedy='Or choose preset = "robust", which needs none',
            )
        return simulation

    @property
    def _place(self) -> Place:
        return Place(self.file, "")


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as `section.key`."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping) and value:
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
