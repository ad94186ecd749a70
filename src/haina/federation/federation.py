"""Federation: a federation file made into typed objects, ready to simulate (and to serve).

The same file and the same objects run in simulation and in deployment. Nothing here computes; it only puts parts together. What needs neither rows
nor a framework is had without them: schema (if handed in or written down), strategy and training.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from haina.artifact import Array
from haina.data.federated import Federated
from haina.data.schema import Schema
from haina.errors import ConfigError
from haina.federation.composition import composed
from haina.federation.envelope import Envelope
from haina.federation.learners import EXACT, LEARNERS, Made
from haina.federation.made import Finding
from haina.federation.origin import Origin
from haina.federation.parts import Place, build, did_you_mean, part
from haina.federation.schema import FederationFile, ModelSection, ServeSection, parse
from haina.federation.serving import discounted
from haina.federation.task import task_of
from haina.learners.learner import Learner, Training
from haina.simulation.attack import Attack
from haina.simulation.attacks import ATTACKS
from haina.simulation.faults import Dropout, Stragglers
from haina.simulation.simulation import Run, Simulation
from haina.strategy.parts import Payload, Seen
from haina.strategy.strategy import Instructions, Strategy
from haina.strategy.validate import FixedClip
from haina.wire.messages import NAME, Codec, Task

if TYPE_CHECKING:
    from haina.privacy.policy import Policy
    from haina.simulation.veil import Veil

#: Learners that train the same models, so that one can take another's place.
EXECUTORS = ("auto", "jax", "torch")

#: Fields of a task that say nothing about the next one.
_OF_ONE_ROUND = frozenset(
    {"round", "version", "model", "bytes", "learning_rate", "control", "codec", "seconds", "limit"}
)

#: What may change in the middle of a run, beside `[serve]`.
_FREE = frozenset({"train.rounds", "simulation.workers", "simulation.engine"})


@dataclass(frozen=True)
class Federation:
    """One federation file.

    Args:
        text: the file as written; a run keeps a copy.
        file: what it is called in messages.
        folder: where relative paths and `build = "task:..."` start from.
        settings: the checked contents.
        known: what rows look like, where that was handed in and need not be found out.
        executor: what `[model] learner` was replaced by (`on`), if it was.
    """

    text: str
    file: str
    folder: Path
    settings: FederationFile
    known: Schema | None = None
    executor: str | None = None

    @classmethod
    def of(
        cls,
        text: str,
        file: str = "federation.toml",
        folder: str | Path = ".",
        schema: Schema | None = None,
    ) -> Federation:
        """Read the text of a federation file.

        Args:
            text: the file as written.
            file: what it is called in messages.
            folder: where relative paths and `build = "task:..."` start from.
            schema: what rows look like, if that is known; everything but the rows themselves can then be made without them.

        Raises:
            ConfigError: naming file, key, value and what is allowed.
        """
        return cls(text, file, Path(folder), parse(text, file), schema)

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

    def on(self, executor: str) -> Federation:
        """The same federation, trained by another executor: the same model in another framework.

        Raises:
            ConfigError: there is no such executor, or the learner of the file has one home only.
        """
        allowed, learner = ", ".join(EXECUTORS), self.settings.model.learner
        if executor not in EXECUTORS:
            raise ConfigError(f"--executor is {executor!r}", allowed=allowed)
        if learner not in EXECUTORS:
            raise (self._place / "model" / "learner").error(
                f"{learner!r} is trained in one way only", allowed=allowed, remedy="Leave --executor out"
            )
        said = self.settings.model.model_dump()
        if said.get("build") is not None and executor != learner:
            raise (self._place / "model" / "build").error(
                f"{said['build']!r} is written for {learner}, and --executor is {executor}",
                allowed=learner,
                remedy="Leave --executor out",
            )
        if executor == "torch" and learner == "auto":
            said.setdefault("device", "auto")
        if executor == "jax":
            for key, means in (("device", ("auto", "cpu")), ("compiled", (False,))):
                if key in said and said.pop(key) not in means:
                    raise (self._place / "model" / key).error(
                        "is for torch, and --executor is jax", allowed="auto, torch", remedy="Leave it out"
                    )
        model = ModelSection(**{**said, "learner": executor})
        return replace(self, settings=self.settings.model_copy(update={"model": model}), executor=executor)

    def settled(self) -> Federation:
        """The same federation on the executor that `auto` means on this machine, so that every worker, and who goes on with a run, takes that one."""
        made = self._made
        return self if made.executor is None else self.on(made.executor())

    @property
    def wants_gpu(self) -> bool:
        """True when the learner trains on a GPU where there is one."""
        said = self.settings.model.model_dump()
        return bool(said["learner"] == "torch" and said.get("device", "cpu") != "cpu")

    def check_same(self, started: Federation) -> None:
        """Refuse to go on with a run that was started from other words; only the number of rounds may have changed, and what no model depends on.

        Raises:
            ConfigError: naming the first setting that differs.
        """
        now, then = (_flat(federation.settings.model_dump()) for federation in (self, started))
        for key in sorted({*now, *then} - _FREE):
            if not key.startswith("serve.") and now.get(key) != then.get(key):
                raise Place(self.file, key).error(
                    f"is {now.get(key)!r}, and the run was started with {then.get(key)!r}",
                    allowed="another number of rounds, workers or engine, and nothing else",
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
    def origin(self) -> Origin:
        """Where rows come from."""
        return Origin(self.settings, self.folder, self._place, self.known)

    @property
    def schema(self) -> Schema:
        """What rows look like (`Origin.schema`)."""
        return self.origin.schema

    @property
    def data(self) -> Federated:
        """Clients' rows, test rows and the server's samples, as a simulation divides them."""
        return self.origin.data

    def has_rows(self, name: Literal["test", "held"]) -> bool:
        """True when the coordinator has such rows of its own; without reading them."""
        return self.origin.has_rows(name)

    def site(self, source: str | Path) -> tuple[Array, Array]:
        """One owner's own rows, encoded by the schema (`Origin.site`)."""
        return self.origin.site(source)

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
        return cast(Made, build(make(self.schema, self.folder), dict(model.model_extra or {}), place))

    @cached_property
    def learner(self) -> Learner:
        """The home of local training; a framework is imported here and not before."""
        return cast(Learner, build(self._made.learner, {}, self._place / "model"))

    def update_size(self, envelope: Envelope) -> int:
        """Length of an update's vector, without importing a framework; 0 where it is free (collected payloads)."""
        if self.strategy.combine.payload is Payload.AVERAGE:
            return envelope.length
        return self.learner.update_size or 0

    def brief(self, envelope: Envelope) -> str:
        """What the file says and what follows from it, as JSON, for nodes in languages that read no TOML.

        * `file`: the file's sections with their defaults.
        * `payload`: what becomes of vectors: "average" (increments), "sum" (statistics), "collect" (documents).
        * `length`: d, of an update's vector; 0 where it is free. `dtype`: of the model's vector, "float32", "float64" or "uint8".
        * `codecs`: how an update may be written.
        * `learner`: what a learner that needs no framework says of itself (`Learner.describe`), such as the names of coefficients; empty for the
            others.
        * `promises`: what is promised of updates, in sentences.
        * `task`: what the file says of every task, by the names of `Task`'s fields (see `departure`).
        * `remembers`: true where clients keep control vectors between rounds (SCAFFOLD, FedDyn).
        """
        payload = self.strategy.combine.payload
        every = self.task(
            Instructions(0, 0.0, self.strategy.local.proximal), version=0, model="0" * 64, bytes=0
        ).model_dump(mode="json", exclude=set(_OF_ONE_ROUND))
        if self._fixed_limit is not None:
            every["limit"] = self._fixed_limit
        known = payload is not Payload.AVERAGE or self.settings.model.learner in EXACT
        return json.dumps(
            {
                "file": self.settings.model_dump(mode="json"),
                "payload": str(payload),
                "length": self.update_size(envelope),
                "dtype": envelope.dtype.name,
                "codecs": list(self.codecs),
                "learner": dict(self.learner.describe()) if known else {},
                "promises": [] if self.privacy is None else list(self.privacy.promises),
                "task": every,
                "remembers": self.strategy.local.remembers,
            },
            allow_nan=False,
        )

    @property
    def tell(self) -> Callable[[Run], str] | None:
        """What an exact learner says of a finished run; None for the others."""
        return self._made.tell

    @property
    def found(self) -> Callable[[Run], Finding] | None:
        """What an exact learner found in a finished run, as an object; None for the others."""
        return self._made.found

    @cached_property
    def training(self) -> Training:
        """How clients train."""
        train = self.settings.train
        if train.clip_update is not None and self._made.strategy is not None:
            raise (self._place / "train" / "clip_update").error(
                f"the {self.settings.model.learner} learner sends exact statistics, which are not clipped",
                allowed="clip_update and noise with learners that send increments (jax, torch)",
            )
        clip, noise = None, 0.0
        if self.privacy is not None and self.privacy.rows is not None:
            clip, noise = self.privacy.rows.clip, self.privacy.rows.noise
        return Training(
            example_clip=clip,
            example_noise=noise,
            epochs=train.epochs,
            steps=train.steps,
            batch_size=train.batch_size,
            momentum=train.momentum,
            weight_decay=train.weight_decay,
            clip_norm=train.clip_norm,
            clip_update=train.clip_update,
            noise=train.noise,
            measure=frozenset(train.measure),
        )

    @cached_property
    def strategy(self) -> Strategy:
        """The five steps: the learner's own method, or a preset, with the parts given one by one put in their places.

        Where `[serve]` lets late updates count, they weigh less; where `[privacy]` hides updates or covers them by noise, it is kept to that.
        """
        strategy = self._composed
        if self.settings.privacy is not None:
            from haina.federation.private import guarded

            strategy = guarded(strategy, self.settings, self._place)
        said = self.settings.model.model_dump()
        exact = said["learner"] in ("glm", "cox", "summary")
        if exact and said.get("check") == "sum" and strategy.seen is Seen.UPDATE:
            raise (self._place / "model" / "check").error(
                'is "sum", and the coordinator would see the small cells of each site',
                allowed='check = "site"',
                remedy="Or hide single sites: write secure_aggregation = true under [privacy]",
            )
        return discounted(strategy, self.settings, self._place)

    @cached_property
    def privacy(self) -> Policy | None:
        """What is promised of updates; None where the file has no `[privacy]`."""
        if self.settings.privacy is None:
            return None
        from haina.federation.private import policy_of

        return policy_of(self.settings, self.strategy, self._place)

    @cached_property
    def _composed(self) -> Strategy:
        return composed(self.settings, self._made.strategy, self._place)

    @cached_property
    def serve(self) -> ServeSection:
        """How rounds run when clients are real.

        Raises:
            ConfigError: something here holds in simulations only, or the strategy lacks what it needs.
        """
        settings = self.settings
        if not re.fullmatch(NAME, self.name):
            raise (self._place / "name").error(
                f"{self.name!r} cannot become part of an address",
                allowed="1 to 63 letters of a to z, digits, - and _",
            )
        if settings.data.standardise:
            self.origin.site("")
        if self.strategy.needs_judge and not self.has_rows("held"):
            raise self._no_samples()
        return settings.serve

    @property
    def codecs(self) -> tuple[Codec, ...]:
        """How updates may be written: as `[serve]` says, and exact statistics as they are."""
        if self.strategy.combine.payload is Payload.AVERAGE:
            return tuple(self.settings.serve.codecs)
        return ("raw",)

    def task(self, instructions: Instructions, **served: Any) -> Task:
        """What every client of a round must do (`haina.federation.task.task_of`); `served` are the fields that only a coordinator knows."""
        measured = replace(self.training, measure=self.training.measure | self.strategy.measure)
        return task_of(
            measured,
            federation=self.name,
            round=instructions.round,
            learning_rate=instructions.learning_rate,
            proximal=instructions.proximal,
            seed=self.seed,
            **served,
        )

    def departure(self, task: Task) -> str | None:
        """What of a task is not as the file says, in words; None where all is.

        A client that was promised something by the file trains as the file says, whatever the coordinator asks. The learning rate is not looked at,
        for it may follow what all clients achieved.
        """
        limit = task.limit if self._fixed_limit is None else self._fixed_limit
        said = self.task(
            Instructions(task.round, task.learning_rate, self.strategy.local.proximal),
            version=task.version,
            model=task.model,
            bytes=task.bytes,
            control=task.control,
            codec=task.codec,
            seconds=task.seconds,
        ).model_copy(update={"limit": limit})
        for name in Task.model_fields:
            asked, wanted = getattr(task, name), getattr(said, name)
            if asked != wanted:
                return f"{name} is {asked}, and the federation file says {wanted}"
        return None

    @property
    def _fixed_limit(self) -> float | None:
        """The limit of every task; None where it changes, or there is none."""
        clip = self.strategy.clip
        return float(clip.max_norm) if self.strategy.private and isinstance(clip, FixedClip) else None

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
        data = self.data
        simulation = Simulation(
            strategy=self.strategy,
            learner=self.learner,
            data=data,
            training=self.training,
            rounds=train.rounds,
            cohort=train.clients_per_round,
            seed=self.seed,
            attack=self.attack,
            dropout=Dropout(faults.dropout),
            stragglers=Stragglers(faults.stragglers),
            evaluate_every=train.evaluate_every,
            veil=self._veil,
        )
        if self.strategy.needs_judge and not len(data.held[1]):
            raise self._no_samples()
        return simulation

    @property
    def _veil(self) -> Veil | None:
        if self.privacy is None:
            return None
        from haina.simulation.veil import Veil

        return Veil(self.privacy, self.seed)

    def _no_samples(self) -> ConfigError:
        return (self._place / "data" / "held").error(
            f"strategy {self.strategy.name!r} judges updates on samples held by the server, and there are none",
            allowed="a number of rows, for example held = 50; in a folder of clients: held_x.npy and held_y.npy; to serve without a source: "
            '[serve] held = "held.csv"',
            remedy='Or choose preset = "robust", which needs none',
        )

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
