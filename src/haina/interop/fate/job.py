"""What a HomoLR job is, whichever version of FATE writes it down: who takes part, with which tables, and how training goes.

FATE's names: the guest is the site that starts the job, hosts are the other sites, the arbiter adds up. In HomoLR all sites have the same columns.

The trap: equal settings do not mean equal training. FATE's own defaults draw the first weights, shuffle batches, and let the learning rate decay
(1.x); a `HomoLr` here asks for none of it, so that a run can be repeated, in FATE and in Haina.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from haina.errors import ConfigError


@dataclass(frozen=True)
class Table:
    """A table as FATE knows it.

    Args:
        namespace, name: letters, digits, `_`, `-` and `.`.

    Raises:
        ConfigError: other characters.
    """

    namespace: str
    name: str

    def __post_init__(self) -> None:
        for field, value in (("namespace", self.namespace), ("name", self.name)):
            if not value or not all(letter.isalnum() or letter in "_-." for letter in value):
                raise ConfigError(
                    f"the {field} of a FATE table is {value!r}", allowed="letters, digits, '_', '-' and '.'"
                )


@dataclass(frozen=True)
class Site:
    """A party with rows: its number in FATE, and its table."""

    party: int
    table: Table


@dataclass(frozen=True)
class HomoLr:
    """Settings of HomoLR: full gradient steps from zero, a weighted mean after each, as often as said.

    Args:
        epochs: passes over the rows, and rounds, >= 1.
        learning_rate: of plain SGD, > 0.
        alpha: L2 penalty >= 0, which pulls the intercept too.
        batch_size: rows a step; None for all of a site's.

    Raises:
        ConfigError: a setting out of bounds.
    """

    epochs: int = 20
    learning_rate: float = 0.1
    alpha: float = 0.0
    batch_size: int | None = None

    def __post_init__(self) -> None:
        if self.epochs < 1:
            raise ConfigError(f"epochs is {self.epochs}", allowed="an integer >= 1")
        if not 0 < self.learning_rate < float("inf"):
            raise ConfigError(f"the learning rate is {self.learning_rate:g}", allowed="a number > 0")
        if not 0 <= self.alpha < float("inf"):
            raise ConfigError(f"alpha is {self.alpha:g}", allowed="a number >= 0")
        if self.batch_size is not None and self.batch_size < 1:
            raise ConfigError(
                f"batch_size is {self.batch_size}", allowed="an integer >= 1, or none for all rows"
            )


@dataclass(frozen=True)
class RTask:
    """The Haina task: each site hands its rows to an R service of its own and keeps the fit.

    Args:
        r_script_url: of the service, such as `http://localhost:8000/run_logistic_regression`. A site calls its own machine only, unless its owner
            allows another host there.
        timeout: seconds that R may take, > 0.
        format: in which it is asked, as for `learner = "rservice"`: `binary` or `json`.

    Raises:
        ConfigError: no URL, no time, or another format.
    """

    r_script_url: str
    timeout: float = 300.0
    format: str = "binary"

    def __post_init__(self) -> None:
        if not self.r_script_url.startswith(("http://", "https://")):
            raise ConfigError(
                f"r_script_url is {self.r_script_url!r}",
                allowed="a URL, for example http://localhost:8000/run_logistic_regression",
            )
        if not 0 < self.timeout <= 86_400:
            raise ConfigError(
                f"timeout is {self.timeout:g} seconds", allowed="more than 0, at most a day (86400)"
            )

        if self.format not in ("binary", "json"):
            raise ConfigError(f"the format is {self.format!r}", allowed="binary or json")

    def parameters(self) -> dict[str, object]:
        """As the component takes them; whole seconds as integers, and a format only where it is not the usual one."""
        whole = self.timeout == int(self.timeout)
        usual = {} if self.format == "binary" else {"format": self.format}
        seconds = int(self.timeout) if whole else self.timeout
        return {"r_script_url": self.r_script_url, "timeout": seconds, **usual}


@dataclass(frozen=True)
class Job:
    """A HomoLR job of a guest and at least one host.

    Args:
        guest: who starts it.
        hosts: the others; in FATE's secure sums of two, each can tell the other's part from the result.
        arbiter: the party that adds up; a host may be it too.
        settings: of training.
        rows: of the largest site, which is what "all rows" means where FATE wants a number.
        evaluate: end with FATE's evaluation (AUC and others).
        r: the Haina task before training, or none.

    Raises:
        ConfigError: no hosts, one party twice, or no rows.
    """

    guest: Site
    hosts: Sequence[Site]
    arbiter: int
    settings: HomoLr
    rows: int
    evaluate: bool = True
    r: RTask | None = None

    def __post_init__(self) -> None:
        parties = [site.party for site in self.sites]
        if not self.hosts:
            raise ConfigError(
                "there is one site", allowed="a guest and at least one host", remedy="Name two files"
            )
        if len(set(parties)) < len(parties) or min(*parties, self.arbiter) < 1:
            raise ConfigError(
                f"the parties are {', '.join(map(str, parties))}, the arbiter {self.arbiter}",
                allowed="a number >= 1 for each, and no site's twice",
            )
        if self.rows < 1:
            raise ConfigError("the sites have no rows", allowed="at least one")

    @property
    def sites(self) -> tuple[Site, ...]:
        """Guest first."""
        return self.guest, *self.hosts

    @property
    def batch(self) -> int:
        """Rows a step, as a number."""
        return self.settings.batch_size or self.rows
