"""Guard: what this site does for itself, whatever the coordinator says: its own ledger of privacy, one update a round, no needless word.

A site takes the policy from the federation file and keeps to it by itself. It has a budget for its rows: its owner's (`haina join --budget`), which
holds over all federations of the folder, or else the federation's own. Noise that the site adds is charged to it, durably, before anything leaves;
noise that the coordinator promises is charged where the owner has a budget, as a promise is all there is.

The trap is an owner with a budget in a federation without noise: what it gives away has no epsilon, so it takes no part.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from haina.errors import ConfigError, PrivacyError
from haina.learners.dpsgd import spent
from haina.learners.learner import Training
from haina.node.ledger import NodeLedger
from haina.privacy.budget import Budget, Charge, Composition
from haina.privacy.ledger import Account, admits, reopened, totals
from haina.privacy.policy import Policy, Rows
from haina.privacy.secagg import SecAggError
from haina.privacy.stream import Stream
from haina.report import Report
from haina.strategy.round import UNCLIPPED
from haina.update import Update

#: The ledger in a site's folder.
LEDGER = "privacy.sqlite"
#: What a node says of itself where nobody needs to know how many rows it has, or how well they were learnt.
SILENT = Report(1.0)


@dataclass(frozen=True)
class Wishes:
    """What the owner of the rows asks for.

    Args:
        epsilon: what all federations together may learn of the rows; None leaves it to each federation.
        delta: with it.
        dataset: what the owner calls the rows.
    """

    epsilon: float | None = None
    delta: float = 0.0
    dataset: str = ""

    def budget(self, owner: str) -> Budget | None:
        """The owner's own budget.

        Raises:
            ConfigError: it is no budget.
        """
        if self.epsilon is None:
            return None
        ways: Composition = "zcdp" if self.delta else "pure"
        with _asked():
            return Budget(owner, self.dataset, self.epsilon, self.delta, ways)


class Guard:
    """A site's own guard in one federation.

    Args:
        policy: what the federation promises; None where it promises nothing.
        federation: its name.
        owner: the site's name.
        folder: of the site.
        wishes: of its owner.
        clock: seconds since 1970.
        entropy: random bytes.
        training: how the site trains, for what single rows cost.

    Raises:
        ConfigError: the owner's budget is none, or stands on other terms; or there is one, and the federation promises no epsilon.
        PrivacyError: the ledger cannot be used.
    """

    def __init__(
        self,
        policy: Policy | None,
        federation: str,
        owner: str,
        folder: Path,
        wishes: Wishes,
        clock: Callable[[], float],
        entropy: Callable[[int], bytes] = os.urandom,
        training: Training | None = None,
    ) -> None:
        #: Rows of this site, once they are read.
        self.rows = 0
        self._training = training
        self.policy, self.federation, self.owner, self._entropy = policy, federation, owner, entropy
        self._key = owner, wishes.dataset
        self._ledger: NodeLedger | None = None
        own = wishes.budget(owner)
        if own is not None and policy is not None and policy.rows is not None:
            # What rows cost is known as an epsilon at a delta, and not as rho.
            own = replace(own, composition="pure")
        if policy is None and own is None and not (folder / LEDGER).exists():
            return
        self._ledger = NodeLedger(folder / LEDGER, clock)
        try:
            self._open(own)
        except BaseException:
            self._ledger.close()
            raise

    @property
    def hidden(self) -> bool:
        """True where updates leave as parts of secure sums."""
        return self.policy is not None and self.policy.hidden is not None

    @property
    def bits(self) -> Stream:
        """Random bits that were never used before."""
        return Stream.fresh(self._entropy)

    def close(self) -> None:
        """Give the ledger back."""
        if self._ledger is not None:
            self._ledger.close()

    def examples(self, count: int) -> int:
        """How many rows are announced: where weights are inside the sum, or nobody looks at them, nobody is told."""
        return min(count, 1) if self.hidden else count

    def sent(self, update: Update, limit: float | None) -> Update:
        """An update as it may be sent in the clear."""
        policy = self.policy
        if policy is None or policy.mechanism is None:
            return update
        if limit is None:
            raise PrivacyError("the task names no limit for an update that noise is to cover")
        bare = update.report.bare
        if policy.adaptive:
            bare = replace(bare, extra={UNCLIPPED: float(policy.bound(update.vector, limit)[1])})
        return Update(update.client, policy.privatise(update.vector, limit, self.bits), bare)

    # ------------------------------------------------------------------------------------------ the ledger

    def refusal(self, number: int) -> PrivacyError | None:
        """Why this site takes no part in a round; None where it may. Nothing is written."""
        if self._ledger is None or self.policy is None:
            return None
        if number <= self._ledger.used_round(self.federation):
            return self._replayed(number)
        charge = self._charge(number)
        return None if charge is None else self._unpayable(charge, self._ledger.refusals([charge]), number)

    def begin(self, number: int) -> None:
        """Write down, durably, that an update of a round leaves from now on.

        Raises:
            PrivacyError: the budget is spent, or the ledger cannot be used. Nothing may leave.
            SecAggError: "replayed": an update of this round, or of a later one, has left before. What covers one does not cover two.
        """
        if self._ledger is None or self.policy is None:
            return
        charge = self._charge(number)
        unpayable = (
            None if charge is None else self._unpayable(charge, self._ledger.reserve([charge]), number)
        )
        if unpayable is not None:
            raise unpayable
        if not self._ledger.use_round(self.federation, number):
            raise self._replayed(number)

    def left(self, number: int) -> None:
        """The update of a round has left. Where that cannot be written down, it counts as it stands."""
        charge = self._charge(number)
        # A schedule is one charge for all its rounds: it stays reserved, which counts as much.
        if charge is not None and charge.round and self._ledger is not None:
            with suppress(PrivacyError):
                self._ledger.released([charge.id])

    def _open(self, own: Budget | None) -> None:
        assert self._ledger is not None
        there = {account.budget.key: account.budget for account in self._ledger.budgets()}
        standing = there.get(self._key)
        if own is not None:
            with _asked():
                standing = self._ledger.open(own) if standing is None else reopened(standing, own)
        planned = None
        if self.policy is not None and self.policy.allowance is not None:
            planned = self.policy.budget(*self._key)
        if standing is None and planned is not None:
            standing = self._ledger.open(planned)
        #: True where the budget is the owner's, and not this federation's.
        self._own = standing is not None and (
            planned is None or replace(standing, opened=0.0) != replace(planned, opened=0.0)
        )
        silent = self.policy is None or (self.policy.cost is None and self.policy.rows is None)
        if self._own and silent:
            raise ConfigError(
                f"{self.owner} has a budget for its rows, and federation {self.federation} promises no epsilon",
                allowed="federations with noise ([privacy] noise)",
                remedy="Take part with another folder (--state) if that is what the owner of the rows wants",
            )
        rows = None if self.policy is None else self.policy.rows
        if rows is not None and standing is not None and not standing.delta:
            raise ConfigError(
                f"{standing} has no delta, and what noise on gradients costs a row is an epsilon at a delta",
                allowed="a delta > 0, well below 1 / rows",
                remedy="Give --delta 1e-5 beside --budget",
            )
        cost = None if self.policy is None else self.policy.cost
        if (
            self._own
            and standing is not None
            and standing.composition == "pure"
            and cost is not None
            and cost.epsilon is None
        ):
            raise ConfigError(
                f"{standing} adds epsilons, and {self.policy.words if self.policy else ''} has none without a delta",
                allowed="a budget with a delta, well below 1 / clients; or federations with Laplace noise",
                remedy="Give --delta 1e-5 beside --budget",
            )
        self._limited = standing is not None

    def _unpayable(self, charge: Charge, refused: Mapping[str, str], number: int) -> PrivacyError | None:
        assert self.policy is not None
        assert self._ledger is not None
        if charge.id in refused:
            return _spent(refused[charge.id])
        if charge.round == 0 and number > self.policy.rounds:
            # A schedule is paid once, for as many rounds as it has.
            return _spent(f"round {number} is beyond the {self.policy.rounds} that were paid for together")
        if self.policy.allowance is None or not self._own or charge.round == 0:
            return None
        # The owner may allow more than this federation promises to take.
        planned = self.policy.budget(*self._key)
        mine = self._ledger.charges(*self._key, federation=self.federation, last=number + 1)
        before = totals(planned, [known for known in mine if known.id != charge.id])
        reason = admits(planned, before, charge)
        return None if reason is None else _spent(reason)

    def _charge(self, number: int) -> Charge | None:
        """What a round costs this site; None where nothing is counted here."""
        policy = self.policy
        if policy is None or self._ledger is None:
            return None
        if policy.rows is not None:
            return self._charge_of_rows(policy, policy.rows)
        if policy.cost is None:
            return None
        if self._own:
            cost, name = policy.cost, f"{self.federation}/{number}/{self.owner}"
            about = name, *self._key, "*", self.federation, number, policy.words
            return Charge(*about, cost.epsilon, cost.delta, cost.rho)
        if policy.noise == "central" or policy.allowance is None:
            return None
        return policy.charge(self.federation, number, *self._key)

    def _charge_of_rows(self, policy: Policy, protected: Rows) -> Charge | None:
        """What all rounds together cost each of this site's rows. How many those are is nobody's business, so the site alone can count it."""
        if not self._limited:
            return None
        delta = next(a.budget.delta for a in self._budgets() if a.budget.key == self._key)
        assert self._training is not None
        assert self.rows > 0
        steps = self._training.steps_of(self.rows)
        price = spent(self.rows, self._training.batch_size, steps, policy.rounds, protected.noise, delta)
        name = f"{self.federation}/rows in {policy.rounds} rounds/{self.owner}"
        return Charge(name, *self._key, "*", self.federation, 0, policy.words, price, delta, 0.0)

    def _budgets(self) -> list[Account]:
        return [] if self._ledger is None else self._ledger.budgets()

    def _replayed(self, number: int) -> SecAggError:
        return SecAggError(
            "replayed",
            f"this site has sent an update for round {number} of {self.federation!r} or a later one already",
            allowed="one a round, as what hides one update gives two away",
            remedy="If the coordinator was set up anew, the federation needs another name",
        )


@contextmanager
def _asked() -> Iterator[None]:
    """What is wrong with what the owner asked for is the owner's to change."""
    try:
        yield
    except PrivacyError as error:
        raise ConfigError(error.what, allowed=error.allowed, remedy=error.remedy) from error


def _spent(reason: str) -> PrivacyError:
    """What the operator is told, and for the person here, how much."""
    return PrivacyError("the privacy budget of this site is spent", allowed=reason)
