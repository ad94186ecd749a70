"""The privacy officer's page: what is promised, what is spent of whose budget, release by release, and what an attack on the model itself found.

One self-contained sheet, like the page of a run, and the same as JSON. It shows names of owners and data sets, numbers and dates; nothing of any row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from html import escape
from typing import Any

from haina.monitoring.page import sheet, table
from haina.monitoring.text import NONE, called, number, percent, plain, plural
from haina.wire.messages import BudgetInfo, ChargeInfo

#: Rows of the table of releases; a longer one is cut, the newest first.
RELEASES = 2000


@dataclass(frozen=True)
class Statement:
    """What can be said of the privacy of a run, a coordinator or a node.

    Args:
        title: whose.
        promises: sentences, one a promise; a federation's name before those of each, where there are several.
        budgets: what owners allow, and what is spent.
        charges: releases, oldest first.
        findings: of audits: `haina audit`'s JSON.
        made: seconds since 1970.
        federations: of which findings may be; none where that is not known.
    """

    title: str
    promises: Sequence[str]
    budgets: Sequence[BudgetInfo]
    charges: Sequence[ChargeInfo]
    findings: Sequence[Mapping[str, Any]] = field(default_factory=tuple)
    made: float = 0.0
    federations: Sequence[str] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "title": self.title,
            "made": self.made,
            "promises": list(self.promises),
            "budgets": [budget.model_dump(mode="json") for budget in self.budgets],
            "charges": [charge.model_dump(mode="json") for charge in self.charges],
            "audits": [dict(finding) for finding in self.findings],
        }


def page(statement: Statement) -> str:
    """The page as text."""
    return sheet(
        f"{plain(statement.title, 80)}: privacy",
        f"<header><h1>Privacy of {escape(plain(statement.title, 80))}</h1>{_facts(statement)}</header>",
        [
            ("What is promised", _promises(statement.promises)),
            ("Budgets", _budgets(statement.budgets)),
            ("Attacks on the model", _findings(statement.findings)),
            ("Releases", _charges(statement.charges)),
            ("Words", _WORDS),
        ],
    )


def when(seconds: float) -> str:
    """A date and time, UTC; nothing where none was noted."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S} UTC" if seconds else NONE


def _facts(statement: Statement) -> str:
    spent = [budget for budget in statement.budgets if budget.fraction > 0]
    worst = max(statement.budgets, key=lambda budget: budget.fraction, default=None)
    facts = {
        "data sets with a budget": str(len(statement.budgets)),
        "of which something is spent": str(len(spent)),
        "most spent": NONE if worst is None else f"{percent(worst.fraction)} of {called(worst.owner)}'s",
        "releases": str(sum(charge.state == "released" for charge in statement.charges)),
        "made": when(statement.made),
    }
    items = (f"<div><dt>{escape(k)}</dt><dd>{escape(v)}</dd></div>" for k, v in facts.items())
    return f"<dl>{''.join(items)}</dl>"


def _promises(promises: Sequence[str]) -> str:
    if not promises:
        return "<p>Nothing: updates are sent as they are, and seen by the coordinator.</p>"
    return f"<ul>{''.join(f'<li>{escape(plain(promise, 400))}</li>' for promise in promises)}</ul>"


def _budgets(budgets: Sequence[BudgetInfo]) -> str:
    if not budgets:
        return "<p>No budget was opened.</p>"
    head = ("owner", "data set", "counted as", "spent ε", "of ε", "at δ", "spent", "opened")
    rows = (
        (
            called(budget.owner),
            plain(budget.dataset, 60) or "the whole",
            budget.composition,
            number(budget.spent_epsilon),
            number(budget.epsilon),
            f"{budget.delta:g}",
            percent(budget.fraction),
            when(budget.opened),
        )
        for budget in sorted(budgets, key=lambda budget: (-budget.fraction, budget.owner, budget.dataset))
    )
    return table(plural(len(budgets), "budget") + ", the most spent first", head, rows, text=(0, 1, 2))


def _charges(charges: Sequence[ChargeInfo]) -> str:
    if not charges:
        return "<p>Nothing was released.</p>"
    head = ("owner", "data set", "federation", "round", "mechanism", "ε", "ρ", "state", "when")
    caption = plural(len(charges), "charge") + ", the newest first"
    if len(charges) > RELEASES:
        caption += f"; {RELEASES} shown, all in the JSON"
    rows = (
        (
            called(charge.owner),
            plain(charge.dataset, 60) or "the whole",
            called(charge.federation),
            str(charge.round) if charge.round else "all",
            plain(charge.mechanism, 80),
            number(charge.epsilon),
            f"{charge.rho:.3g}" if charge.rho else NONE,
            charge.state if not charge.why else f"{charge.state}: {plain(charge.why, 80)}",
            when(charge.at),
        )
        for charge in list(reversed(charges))[:RELEASES]
    )
    return table(caption, head, rows, text=(0, 1, 2, 4, 7))


def _findings(findings: Sequence[Mapping[str, Any]]) -> str:
    if not findings:
        return "<p>None was run. To run one: <code>haina audit federation.toml</code></p>"
    return "\n".join(map(_finding, findings))


def _finding(finding: Mapping[str, Any]) -> str:
    verdict = finding.get("verdict")
    words = (
        ""
        if verdict is None
        else f"<p><strong>{escape(_VERDICTS.get(str(verdict), plain(verdict)))}</strong></p>"
    )
    return (
        words + "<ul>" + "".join(f"<li>{escape(plain(line, 400))}</li>" for line in told(finding)) + "</ul>"
    )


#: What a verdict means to whoever signs.
_VERDICTS = {
    "violated": "The promise is broken: the attack has measured more than is claimed.",
    "holds": "The promise holds against this attack, which could have shown that it does not.",
    "nothing is promised": "Nothing is promised, so there is nothing to break: what follows is what was found all the same.",
    "not enough canaries to tell": "Nothing was found against the promise; so many canaries cannot prove as much as is claimed.",
}


def told(finding: Mapping[str, Any]) -> list[str]:
    """What an audit found, in sentences; a finding is `haina audit`'s JSON."""
    lines: list[str] = []
    if "canaries" in finding:
        claimed = finding["claimed"]
        promised = "nothing is promised" if claimed is None else f"epsilon {claimed:.3g} is claimed"
        lines.append(
            f"{finding['canaries']} canaries, {finding['canaries_in']} of them in, beside {plural(finding['clients'], 'client')} over "
            f"{plural(finding['rounds'], 'round')}; {finding['mechanism']}: {promised} at delta {finding['delta']:g}."
        )
        lines.append(
            f"With confidence {finding['confidence']:.0%} epsilon is at least {finding['lower_bound']:.3g}; the most that so many canaries "
            f"can prove is {finding['reach']:.3g}."
        )
        if finding["estimate"] is not None:
            lines.append(
                f"It is likely about {finding['estimate']:.3g} ({finding['estimate_low']:.3g} to {finding['estimate_high']:.3g})"
                + (", which is above the claim: look for the fault." if finding["alarm"] else ".")
            )
    for name in ("loss threshold", "LiRA"):
        attack = finding.get("membership", {}).get(name)
        if attack is not None:
            lines.append(
                f"Membership inference by {name}: AUC {attack['auc']:.3f}, where 0.5 is chance; "
                f"{attack['tpr_at_1_percent']:.1%} of the members are found at 1 % false alarms."
            )
    for name, value in finding.get("inversion", {}).items():
        if name.startswith("likeness_"):
            way = name.removeprefix("likeness_").replace("_", " ")
            lines.append(
                f"A row read off one update, {way}: likeness {value:.2f}, where 1 is the row itself and 0 a guess."
            )
    return lines


_WORDS = (
    '<dl class="words">'
    "<div><dt>epsilon (ε), delta (δ)</dt><dd>How much the presence of one client's update can change what becomes known: whatever is seen is at most "
    "e^ε times as likely with it as without, but for a chance of δ. Smaller is more private.</dd></div>"
    "<div><dt>rho (ρ)</dt><dd>The same in another unit, in which rounds add up more closely (zero-concentrated differential privacy).</dd></div>"
    "<div><dt>pure, zcdp</dt><dd>How releases add up: epsilons are added, or rhos are.</dd></div>"
    "<div><dt>reserved, released, void</dt><dd>A charge is reserved before anything leaves, and counts from then on; what was never "
    "released is given back (void). After a crash it stays reserved, and counts.</dd></div>"
    "<div><dt>secure aggregation</dt><dd>Updates are masked by their owners so that only their sum can be read.</dd></div>"
    "</dl>"
)
