"""The shape of a federation file: sections and their keys, with types, bounds and defaults.

A part of a strategy, a partition, a schedule or an attack is only named here (`Part`); `haina.federation.parts` makes it.
"""

from __future__ import annotations

import json
import re
import tomllib
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import PydanticCustomError

from haina.errors import ConfigError
from haina.federation.parts import Place, did_you_mean
from haina.privacy.policy import LEAST
from haina.wire.messages import Codec

#: A name, or a table with a name and settings.
Part = str | dict[str, Any]

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def _seconds(value: Any) -> Any:
    """A duration as seconds; words that are none (`adaptive`) pass."""
    match = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?)\s*([smhd])", value) if isinstance(value, str) else None
    if match is not None:
        value = float(match[1]) * _UNITS[match[2]]
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if value not in (None, "adaptive") and not (number and 0 < value <= 366 * _UNITS["d"]):
        raise PydanticCustomError("duration", 'a duration up to a year, such as "30s", "5m" or "2h"')
    return value


#: A time span: text such as "30s", "5m", "2h" or "1d", or a number of seconds > 0.
Duration = Annotated[float, BeforeValidator(_seconds)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class ModelSection(BaseModel):
    """`[model]`: what is learnt. Further keys are settings of the learner."""

    model_config = ConfigDict(extra="allow", frozen=True)

    learner: str


class DataSection(_Section):
    """`[data]`: where rows come from, who has them, and what they look like to those who have none (`shape`, or the columns of a table)."""

    source: str | None = None
    sites: dict[str, str] | None = None
    partition: Part | None = None
    test: float | int = 0.2
    held: float | int = 0
    standardise: bool = False
    shape: list[Annotated[int, Field(ge=1)]] | None = Field(default=None, min_length=1, max_length=8)
    target: str | None = None
    task: Literal["classification", "regression"] = "classification"
    features: list[str] = Field(default_factory=list)
    groups: str = ""
    categorical: dict[str, list[str]] = Field(default_factory=dict)
    classes: list[str] = Field(default_factory=list)
    missing: Literal["refuse", "drop"] = "refuse"


class TrainSection(_Section):
    """`[train]`: rounds, and what a client does in one."""

    rounds: int = Field(default=10, ge=1)
    clients_per_round: int | None = Field(default=None, ge=1)
    epochs: int = Field(default=1, ge=1)
    steps: int | None = Field(default=None, ge=1)
    batch_size: int = Field(default=32, ge=1)
    learning_rate: float | Part = 0.1
    momentum: float = Field(default=0.0, ge=0, lt=1)
    weight_decay: float = Field(default=0.0, ge=0)
    clip_norm: float | None = Field(default=None, gt=0)
    clip_update: float | None = Field(default=None, gt=0)
    noise: float = Field(default=0.0, ge=0)
    proximal: float | None = Field(default=None, ge=0)
    evaluate_every: int = Field(default=1, ge=1)
    measure: list[Literal["loss_before", "loss_after", "accuracy", "label_counts"]] = Field(
        default_factory=list
    )


class StrategySection(_Section):
    """`[strategy]`: a preset, the parts one by one, or a preset with some parts replaced."""

    preset: Part | None = None
    clip: Part | None = None
    trust: dict[str, Any] | None = None
    weigh: str | list[Part] | None = None
    quality_clip: tuple[float, float] | None = None
    cap: float | Literal["none"] | None = None
    combine: Part | None = None
    server: Part | None = None
    select: Part | None = None


class SimulationSection(_Section):
    """`[simulation]`: what goes wrong on purpose, and how many processes train, on this machine or on a Ray cluster."""

    attack: Part | None = None
    dropout: float = Field(default=0.0, ge=0, lt=1)
    stragglers: float = Field(default=0.0, ge=0, le=1)
    workers: int = Field(default=1, ge=1, le=1024)
    engine: Literal["local", "ray"] = "local"


class ServeSection(_Section):
    """`[serve]`: how rounds run when clients are real. Time spans are seconds once read.

    Args:
        nodes: how many must be there before the first round.
        over_selection: invited / `train.clients_per_round`, >= 1.
        quorum: updates that make a round at its deadline: a number, or a share of those invited in (0, 1].
        deadline: how long a round waits; `adaptive` follows how long clients took, between `deadline_min` and `deadline_max`.
        away: how long a node may give no sign of life and still be invited.
        every: from one round's opening to the next; None for at once.
        mode: `rounds`, or `buffered`: every `buffer` updates make a version, whichever round they began in (FedBuff, Nguyen et al. 2022).
        max_staleness: versions that the model of an update may be behind; 0 refuses late updates. In buffered mode 20 unless given, where a
            client counts for about a fifth.
        discount: what a late update counts: the exponent a of 1 / (1 + s)^a, or a staleness factor with its settings.
        codecs: how updates may be written.
        keep_models: versions kept.
        test, held: files with the coordinator's own rows, to evaluate models and to judge updates.
    """

    nodes: int = Field(default=2, ge=1)
    over_selection: float = Field(default=1.0, ge=1, le=100)
    quorum: Annotated[int, Field(ge=1)] | Annotated[float, Field(gt=0, le=1)] = 1.0
    deadline: Annotated[float | Literal["adaptive"], BeforeValidator(_seconds)] = 600.0
    deadline_min: Duration = 10.0
    deadline_max: Duration = 3600.0
    away: Duration = 600.0
    every: Annotated[float | None, BeforeValidator(_seconds)] = None
    mode: Literal["rounds", "buffered"] = "rounds"
    buffer: int | None = Field(default=None, ge=1)
    max_staleness: int = Field(default_factory=lambda read: 20 if read.get("mode") == "buffered" else 0, ge=0)
    discount: float | Part = 0.5
    codecs: list[Codec] = Field(default=["float32"], min_length=1)
    keep_models: int = Field(default=20, ge=1)
    test: str | None = None
    held: str | None = None

    @property
    def late(self) -> bool:
        """True when updates of older models may count."""
        return self.max_staleness > 0


class SecureSection(_Section):
    """`[privacy] secure_aggregation`: the fields of `haina.privacy.policy.Hidden`, `patience` as a time span."""

    group: int | None = Field(default=None, ge=3)
    corrupt: float = Field(default=0.1, ge=0, lt=0.5)
    dropout: float = Field(default=0.1, ge=0, lt=0.5)
    range: float | None = Field(default=None, gt=0)
    patience: Duration = 60.0


class BudgetSection(_Section):
    """`[privacy] budget`: the fields of `haina.privacy.policy.Allowance`."""

    epsilon: float = Field(ge=LEAST)
    delta: float = Field(default=0.0, ge=0, lt=1)
    composition: Literal["pure", "zcdp", "pld"] = Field(
        default_factory=lambda read: "zcdp" if read.get("delta") else "pure"
    )


class CorrelatedSection(_Section):
    """`[privacy] correlated`: noise that later rounds take back in part, for clients that take part seldom (`haina.privacy.correlated`).

    Args:
        separation: rounds between two of one client's, >= 1.
        participations: how often a client takes part at most.
    """

    separation: int = Field(ge=1)
    participations: int = Field(ge=1)


class PrivacySection(_Section):
    """`[privacy]`: what of an update is bounded, hidden, covered by noise, and counted.

    Args:
        unit: whose presence is protected: a whole client's, or one example's (`learner = "torch"`, noise inside local training).
        noise: where it is added: `central` by the coordinator, `local` by each client for itself, `distributed` by all clients together
            inside a secure sum.
        mechanism: which noise, and how much a round; without a number, as much as keeps the budget for all of `train.rounds`.
        clip: the longest update, in the mechanism's norm: a number, or `{adaptive = {quantile = 0.5, start = 1.0}}`.
        secure_aggregation: true, or its settings.
        budget: what each data set may spend here.
        max_examples: more examples than this weigh no more, where weights are by samples.
        correlated: see `CorrelatedSection`.
    """

    unit: Literal["client", "example"] = "client"
    noise: Literal["none", "central", "local", "distributed"] = Field(
        default_factory=lambda read: "local" if read.get("unit") == "example" else "none"
    )
    mechanism: Part | None = None
    clip: float | Part | None = None
    secure_aggregation: bool | SecureSection = False
    budget: BudgetSection | None = None
    max_examples: float = Field(default=1000.0, gt=0)
    correlated: CorrelatedSection | None = None


class FederationFile(_Section):
    """A whole file."""

    name: str = Field(default="federation", min_length=1, max_length=80, pattern=r"^[\w][\w .-]*$")
    seed: int = Field(default=0, ge=0, lt=1 << 63)
    model: ModelSection
    data: DataSection
    train: TrainSection = TrainSection()
    strategy: StrategySection = StrategySection()
    privacy: PrivacySection | None = None
    simulation: SimulationSection = SimulationSection()
    serve: ServeSection = ServeSection()


def parse(text: str, file: str) -> FederationFile:
    """Read the text of a federation file.

    Raises:
        ConfigError: not TOML, an unknown key, a missing key or a value out of bounds; the message names file, key and value.
    """
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{file} is not TOML: {error}", remedy="Mend the line it names") from error
    except (RecursionError, ValueError) as error:
        raise ConfigError(f"{file} nests or counts beyond all sense", remedy="Mend it") from error
    try:
        # As JSON, so that lists are tuples and words choices, and yet "10" is no number and true is no 1.
        return FederationFile.model_validate_json(json.dumps(raw, default=str), strict=True)
    except ValidationError as error:
        raise _spoken(error, raw, file) from error


def _spoken(error: ValidationError, raw: dict[str, Any], file: str) -> ConfigError:
    first = error.errors()[0]
    # Of a choice between kinds, the one that came furthest is the one that was meant.
    same = [one for one in error.errors() if one["loc"][:2] == first["loc"][:2]]
    first = max(same, key=lambda one: len(one["loc"]))
    # Members of a union add their type to the location; only the keys of the file are worth naming.
    keys: list[str] = []
    value: Any = raw
    for step in first["loc"]:
        places = range(len(value)) if isinstance(value, list) else value if isinstance(value, dict) else ()
        known = step in places
        if not known and (
            step is not first["loc"][-1] or first["type"] not in {"extra_forbidden", "missing"}
        ):
            continue
        keys.append(str(step))
        value = value[step] if known else None
    place = Place(file, ".".join(keys))
    section = _section(first["loc"])
    if first["type"] == "extra_forbidden":
        return place.error(
            "there is no such key", allowed=", ".join(section), remedy=did_you_mean(keys[-1], section)
        )
    if first["type"] == "missing":
        return place.error(
            "is missing", allowed="" if isinstance(first["loc"][-1], int) else ", ".join(section)
        )
    words = first["msg"].removeprefix("Input should be ").removeprefix("String should ")
    return place.error(f"{first['input']!r} does not fit", allowed=words.replace("an object", "a table"))


def _section(location: tuple[int | str, ...]) -> list[str]:
    """Keys of the section that a location lies in."""
    model: type[BaseModel] = FederationFile
    for step in location[:-1]:
        field = model.model_fields.get(str(step))
        if field is None:
            break
        # A section that may be left out is a union with None.
        kinds = [
            kind
            for kind in (field.annotation, *get_args(field.annotation))
            if isinstance(kind, type) and issubclass(kind, BaseModel)
        ]
        if not kinds:
            break
        model = kinds[0]
    return list(model.model_fields)
