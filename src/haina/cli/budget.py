"""`haina budget`: what is spent of whose privacy budget (`show`), how much noise a plan needs (`plan`), and the privacy officer's page (`export`).

Three places keep a ledger: a coordinator of all its sites, a site of its own data, and the folder of a simulated run. Where a folder is named it is
one of the last two.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from haina.cli.reach import Where
from haina.cli.talk import data, json_line, say, shown
from haina.errors import ConfigError, HainaError
from haina.federation import Federation
from haina.monitoring.privacy import Statement, page
from haina.monitoring.text import called, number, percent, plain
from haina.privacy.budget import Budget, Charge
from haina.privacy.ledger import Account, totals
from haina.simulation.rundir import RunDir, replace_file
from haina.strategy.record import RoundRecord, Verdict
from haina.wire.messages import BudgetInfo, ChargeInfo

#: A site's own ledger, in its folder.
LEDGER = "privacy.sqlite"
#: Where `haina audit --out` leaves a run's finding, so that the page of the run shows it.
AUDIT = "audit.json"

#: Verdicts on those who sent nothing. Whatever was sent counts, also where the rule then passed over it.
_KEPT = {Verdict.FAILED, Verdict.ABSENT}


def show(where: Where, folder: Path | None, *, as_json: bool) -> None:
    """List the budgets, the most spent first."""
    statement = _statement(where, folder)
    if as_json:
        json_line(statement.to_json())
        return
    table = Table(header_style="bold")
    for name in ("owner", "data set", "counted as"):
        table.add_column(name, overflow="fold")
    for name in ("spent ε", "of ε", "at δ", "spent", "releases"):
        table.add_column(name, justify="right")
    releases: dict[tuple[str, str], int] = {}
    for charge in statement.charges:
        if charge.state != "void":
            releases[charge.owner, charge.dataset] = releases.get((charge.owner, charge.dataset), 0) + 1
    for budget in sorted(statement.budgets, key=lambda budget: (-budget.fraction, budget.owner)):
        table.add_row(
            called(budget.owner),
            plain(budget.dataset, 60) or "the whole",
            budget.composition,
            number(budget.spent_epsilon),
            number(budget.epsilon),
            f"{budget.delta:g}",
            percent(budget.fraction),
            str(releases.get((budget.owner, budget.dataset), 0)),
        )
    shown(table)
    for promise in statement.promises:
        say(f"* {promise}")


def plan(
    *,
    epsilon: float,
    delta: float,
    rounds: int,
    sampling: float,
    mechanism: str,
    composition: str,
    as_json: bool,
) -> None:
    """Say what noise a round needs, and what that is worth."""
    from haina.federation.private import for_rounds
    from haina.privacy.accounting import Sampling
    from haina.privacy.accounting import epsilon as accounted
    from haina.privacy.mechanisms import MECHANISMS
    from haina.privacy.policy import Allowance

    if mechanism not in MECHANISMS:
        raise ConfigError(f"--mechanism is {mechanism!r}", allowed=", ".join(sorted(MECHANISMS)))
    if composition not in ("pld", "zcdp", "pure"):
        raise ConfigError(f"--composition is {composition!r}", allowed="pld, zcdp, pure")
    if sampling < 1 and composition != "pld":
        raise ConfigError(
            f"--sampling is {sampling:g}, and {composition} composition does not know of sampling",
            allowed="--composition pld, or --sampling 1",
        )
    kind = Sampling("poisson", sampling) if sampling < 1 else Sampling("everyone")
    chosen = for_rounds(mechanism, Allowance(epsilon, delta, composition), rounds, kind)  # type: ignore[arg-type]
    cost = chosen.cost()
    answer: dict[str, Any] = {
        "mechanism": mechanism,
        **{name: float(value) for name, value in vars(chosen).items()},
        "rounds": rounds,
        "sampling": sampling,
        "composition": composition,
        "epsilon": epsilon,
        "delta": delta,
        "rho_of_one_round": cost.rho,
        "epsilon_of_one_round": cost.epsilon,
        "epsilon_by_pld": accounted(chosen, rounds, delta, kind) if delta else None,
    }
    if as_json:
        json_line(answer)
        return
    strength = next(iter(vars(chosen)))
    data(f"{mechanism} with {strength} = {getattr(chosen, strength):.6g}")
    unit = "times the clipping limit is the standard deviation of the noise on the sum of a round"
    if strength == "epsilon":
        unit = "is what one round spends; the scale of the noise is the limit (L1) divided by it"
    say(f"{getattr(chosen, strength):.4g} {unit}.")
    if answer["epsilon_by_pld"] is not None:
        say(
            f"{rounds} rounds of it are ({answer['epsilon_by_pld']:.4g}, {delta:g})-private by the tightest accountant."
        )
    if sampling < 1:
        say(
            "That holds where nobody knows who took part. A federation here shows it, so its ledger counts every round of a client in full."
        )


def export(where: Where, folder: Path | None, out: Path, audits: Sequence[Path], *, as_json: bool) -> None:
    """Write the page (or JSON, by the ending of the file's name)."""
    if out.suffix not in (".html", ".json"):
        raise ConfigError(f"--out is {out}", allowed="a file that ends in .html or .json")
    statement = _statement(where, folder, [_read_json(path) for path in audits])
    for finding in statement.findings:
        if statement.federations and finding.get("federation") not in statement.federations:
            raise HainaError(
                f"an audit was of the federation {plain(finding.get('federation'), 80) or 'without a name'}",
                allowed=", ".join(statement.federations),
                remedy="Audit the file that this page is about: haina audit FILE --out FINDING.json",
            )
    text = (
        page(statement)
        if out.suffix == ".html"
        else json.dumps(statement.to_json(), indent=1, allow_nan=False)
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    replace_file(out, text.encode())
    if as_json:
        json_line({"file": str(out), "budgets": len(statement.budgets), "charges": len(statement.charges)})
    else:
        data(str(out))


def _statement(where: Where, folder: Path | None, audits: Sequence[dict[str, Any]] = ()) -> Statement:
    if folder is None:
        return _of_coordinator(where, audits)
    if (folder / LEDGER).exists():
        return _of_node(folder, audits)
    return _of_run(RunDir(folder), audits)


def _of_coordinator(where: Where, audits: Sequence[dict[str, Any]]) -> Statement:
    with where.api() as api:
        federations, budgets = api.federations(), api.budgets()
        charges = api.charges(last=10_000)
    promises = [
        f"{federation.name}: {promise}" if len(federations) > 1 else promise
        for federation in federations
        for promise in federation.promises
    ]
    names = [federation.name for federation in federations]
    return Statement("the coordinator", promises, budgets, charges, audits, time.time(), names)


def _of_node(folder: Path, audits: Sequence[dict[str, Any]]) -> Statement:
    from haina.node.ledger import NodeLedger

    ledger = NodeLedger(folder / LEDGER, time.time)
    try:
        accounts, charges = ledger.budgets(), ledger.charges()
    finally:
        ledger.close()
    promises = ["This is the site's own ledger: nothing that it counts left before it was counted."]
    return Statement(
        folder.name,
        promises,
        [_budget(account) for account in accounts],
        [_charge(c) for c in charges],
        audits,
        time.time(),
    )


def _of_run(run: RunDir, audits: Sequence[dict[str, Any]]) -> Statement:
    federation = Federation.of(run.federation())
    policy = federation.privacy
    found = [*audits, *([_read_json(run.path / AUDIT)] if (run.path / AUDIT).exists() else [])]
    if policy is None:
        return Statement(federation.name, [], [], [], found, time.time(), [federation.name])
    charges: list[Charge] = []
    if policy.mechanism is not None and policy.allowance is not None:
        for record in run.records():
            charges += _released(policy, federation.name, record)
    budgets = []
    if policy.allowance is not None:
        of: dict[str, list[Charge]] = {}
        for charge in charges:
            of.setdefault(charge.owner, []).append(charge)
        for owner in sorted(of):
            budget: Budget = policy.budget(owner, "")
            budgets.append(_budget(Account(budget, totals(budget, {c.id: c for c in of[owner]}.values()))))
    return Statement(
        federation.name,
        policy.promises,
        budgets,
        [_charge(c) for c in charges],
        found,
        time.time(),
        [federation.name],
    )


def _released(policy: Any, name: str, record: RoundRecord) -> list[Charge]:
    from dataclasses import replace

    return [
        replace(policy.charge(name, record.round, client.client, ""), round=record.round, state="released")
        for client in record.clients
        if client.verdict not in _KEPT
    ]


def _budget(account: Account) -> BudgetInfo:
    budget, spent = account.budget, account.spent
    return BudgetInfo(
        owner=budget.owner,
        dataset=budget.dataset,
        epsilon=budget.epsilon,
        delta=budget.delta,
        composition=budget.composition,
        opened=budget.opened,
        parts=budget.parts,
        spent_epsilon=spent.epsilon,
        spent_delta=spent.delta,
        spent_rho=spent.rho,
        fraction=spent.fraction,
    )


def _charge(charge: Charge) -> ChargeInfo:
    return ChargeInfo(**{name: getattr(charge, name) for name in ChargeInfo.model_fields})


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise HainaError(
            f"{path} is no finding of an audit", remedy="Make one: haina audit federation.toml"
        ) from error
    if not isinstance(value, dict):
        raise HainaError(f"{path} is no finding of an audit", allowed="what haina audit --json writes")
    return value
