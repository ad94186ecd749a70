"""What an operator types: a noun, then a verb; the noun alone, or followed by what is no verb, lists (`haina rounds digits`).

Each command imports its room when it is called. All take the options of `haina.cli.reach`.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from haina.cli.reach import Where, reaching

Json = Annotated[bool, typer.Option("--json", help="End with one JSON line on standard output.")]
Why = Annotated[str, typer.Option(help="A reason, for the audit log.")]
Federation = Annotated[
    str | None, typer.Argument(metavar="[FEDERATION]", help="May be left out where there is one.")
]
Last = Annotated[int, typer.Option(min=1, max=10_000, help="How many of the newest.")]

_HELP = ("-h", "--help")


class Role(StrEnum):
    """Whom an invitation is for."""

    NODE = "node"
    VIEWER = "viewer"
    OPERATOR = "operator"


class Noun(TyperGroup):
    """A group of commands whose first is meant where none is named."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """See click."""
        if not args or args[0] not in (*self.commands, *_HELP):
            args = [next(iter(self.commands)), *args]
        return super().parse_args(ctx, args)


def _noun(**options: Any) -> typer.Typer:
    return typer.Typer(add_completion=False, **options)


nodes, rounds, models, budget = (_noun(cls=Noun) for _ in range(4))
config, federation, canaries = (_noun(no_args_is_help=True) for _ in range(3))


def register(app: typer.Typer) -> None:
    """Add the operator's commands."""
    for command in (invite, status, logs):
        app.command()(command)
    app.add_typer(nodes, name="nodes", help="See who takes part; shut one out (revoke).")
    app.add_typer(rounds, name="rounds", help="See what became of each round; explain one (show).")
    app.add_typer(
        models,
        name="models",
        help="See the versions of a model; fetch one, export a forest, or go back to one (rollback).",
    )
    app.add_typer(
        budget,
        name="budget",
        help="See what is spent of whose privacy; plan noise; export the page (export).",
    )
    app.add_typer(
        canaries, name="canaries", help="Audit a federation that runs, by sites that send what can be found."
    )
    app.add_typer(config, name="config", help="See and change settings while everything runs.")
    app.add_typer(federation, name="federation", help="Start, pause or stop a federation; what it found.")


@reaching
def invite(
    where: Where,
    name: Annotated[str, typer.Argument(metavar="NAME", help="How the newcomer will be called.")],
    federation: Annotated[str | None, typer.Option(help="May be left out where there is one.")] = None,
    group: Annotated[str | None, typer.Option(help="A group of nodes that shares settings.")] = None,
    role: Annotated[Role, typer.Option(help="What the newcomer may do.")] = Role.NODE,
    hours: Annotated[float, typer.Option(help="How long it is good; at most 720.")] = 24.0,
    out: Annotated[Path | None, typer.Option(help="Where to write it; NAME.invite if not given.")] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Also if somebody has the name, who is then put out.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Make the one file with which a site takes part."""
    from haina.cli.invite import invite as command

    command(
        where,
        name,
        federation=federation,
        group=group,
        role=role.value,
        hours=hours,
        out=out,
        replace=replace,
        as_json=as_json,
    )


@reaching
def status(
    where: Where,
    watch: Annotated[bool, typer.Option("--watch", help="Keep looking.")] = False,
    as_json: Json = False,
) -> None:
    """See how the federations stand."""
    from haina.cli.status import status as command

    command(where, watch=watch, as_json=as_json)


@reaching
def logs(
    where: Where,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as it grows.")] = False,
    last: Last = 100,
    federation: Annotated[str | None, typer.Option(help="Of one federation only.")] = None,
    as_json: Json = False,
) -> None:
    """See who did what, and what happened."""
    from haina.cli.logs import logs as command

    command(where, last, federation, follow=follow, as_json=as_json)


# ------------------------------------------------------------------------------------------------ nodes


@nodes.command("list")
@reaching
def list_nodes(where: Where, as_json: Json = False) -> None:
    """List nodes, viewers and operators (what `haina nodes` does)."""
    from haina.cli.nodes import nodes as command

    command(where, as_json=as_json)


@nodes.command("revoke")
@reaching
def revoke_node(
    where: Where, name: Annotated[str, typer.Argument(metavar="NAME")], why: Why = "", as_json: Json = False
) -> None:
    """Shut one out, from its next call on."""
    from haina.cli.nodes import revoke as command

    command(where, name, why, as_json=as_json)


# ------------------------------------------------------------------------------------------------ rounds


@rounds.command("list")
@reaching
def list_rounds(where: Where, federation: Federation = None, last: Last = 20, as_json: Json = False) -> None:
    """List the newest rounds (what `haina rounds` does)."""
    from haina.cli.rounds import rounds as command

    command(where, federation, last, as_json=as_json)


@rounds.command("show")
@reaching
def show_round(
    where: Where,
    words: Annotated[list[str], typer.Argument(metavar="[FEDERATION] NUMBER")],
    as_json: Json = False,
) -> None:
    """Explain one: who was weighed how, and why; who failed, and where."""
    from haina.cli.rounds import show as command

    command(where, words, as_json=as_json)


# ------------------------------------------------------------------------------------------------ models


@models.command("list")
@reaching
def list_models(where: Where, federation: Federation = None, as_json: Json = False) -> None:
    """List the versions (what `haina models` does)."""
    from haina.cli.models import models as command

    command(where, federation, as_json=as_json)


@models.command("fetch")
@reaching
def fetch_model(
    where: Where,
    out: Annotated[Path, typer.Option(metavar="FILE", help="Where to write it.")],
    federation: Federation = None,
    version: Annotated[int | None, typer.Option(min=0, help="The newest if not given.")] = None,
    as_json: Json = False,
) -> None:
    """Bring the bytes of a version here."""
    from haina.cli.models import fetch as command

    command(where, federation, version, out, as_json=as_json)


@models.command("export")
def export_model(
    file: Annotated[
        Path, typer.Argument(metavar="MODEL", help="A forest: what fetch wrote, or of a run's folder.")
    ],
    out: Annotated[Path, typer.Option(metavar="FILE", help="Where to write it: .onnx, .treelite or .json.")],
    as_json: Json = False,
) -> None:
    """Write a forest for other programs, which find the same votes."""
    from haina.cli.export import export as command

    command(file, out, as_json=as_json)


@models.command("rollback")
@reaching
def rollback_model(
    where: Where,
    words: Annotated[list[str], typer.Argument(metavar="[FEDERATION] VERSION")],
    why: Why = "",
    as_json: Json = False,
) -> None:
    """Make an earlier version the newest."""
    from haina.cli.models import rollback as command

    command(where, words, why, as_json=as_json)


# ------------------------------------------------------------------------------------------------ budget

Folder = Annotated[
    Path | None,
    typer.Argument(metavar="[FOLDER]", help="Of a run, or of a site; the coordinator's if left out."),
]


@budget.command("show")
@reaching
def show_budget(where: Where, folder: Folder = None, as_json: Json = False) -> None:
    """See what is spent of each budget (what `haina budget` does)."""
    from haina.cli.budget import show as command

    command(where, folder, as_json=as_json)


@budget.command("plan")
def plan_budget(
    epsilon: Annotated[float, typer.Option(help="What may be spent in all.")],
    rounds: Annotated[int, typer.Option(min=1, help="Rounds that a data set takes part in.")],
    delta: Annotated[float, typer.Option(help="The chance that epsilon does not hold.")] = 1e-5,
    sampling: Annotated[
        float, typer.Option(min=1e-9, max=1, help="Probability of taking part in a round (Poisson sampling).")
    ] = 1.0,
    mechanism: Annotated[
        str, typer.Option(help="gaussian, discrete_gaussian, laplace or discrete_laplace.")
    ] = "gaussian",
    composition: Annotated[
        str, typer.Option(help="pld (the tightest, for a fixed schedule), zcdp or pure.")
    ] = "pld",
    as_json: Json = False,
) -> None:
    """Say how much noise a round needs to keep to a budget."""
    from haina.cli.budget import plan as command

    command(
        epsilon=epsilon,
        delta=delta,
        rounds=rounds,
        sampling=sampling,
        mechanism=mechanism,
        composition=composition,
        as_json=as_json,
    )


@budget.command("export")
@reaching
def export_budget(
    where: Where,
    out: Annotated[Path, typer.Option(metavar="FILE", help="privacy.html to print, privacy.json to read.")],
    folder: Folder = None,
    audit: Annotated[
        list[Path] | None, typer.Option(metavar="FILE", help="A finding of haina audit; may be repeated.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Write the privacy officer's page: promises, budgets, releases, attacks."""
    from haina.cli.budget import export as command

    command(where, folder, out, audit or [], as_json=as_json)


# ------------------------------------------------------------------------------------------------ canaries


@canaries.command("new")
def new_canaries(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where to keep their seed.")],
    count: Annotated[int, typer.Option(min=2, help="How many; a fair coin lets half of them in.")] = 24,
) -> None:
    """Make canaries for one audit."""
    from haina.cli.canaries import new as command

    command(file, count)


@canaries.command("judge")
@reaching
def judge_canaries(
    where: Where,
    file: Annotated[Path, typer.Argument(metavar="CANARIES", help="The file that `new` made.")],
    federation: Annotated[Path, typer.Argument(metavar="FEDERATION.toml", help="What was promised.")],
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the finding here, as JSON.")] = None,
    confidence: Annotated[float, typer.Option(min=0.5, max=0.9999, help="Of the bound.")] = 0.95,
    as_json: Json = False,
) -> None:
    """Look for them in the models that were published, and hold that against the promise."""
    from haina.cli.canaries import judge as command

    raise typer.Exit(command(where, file, federation, out, confidence, as_json=as_json))


# ------------------------------------------------------------------------------------------------ config


@config.command("get")
@reaching
def get_config(
    where: Where,
    scope: Annotated[str, typer.Option(help="global, group:NAME or node:NAME.")] = "global",
    as_json: Json = False,
) -> None:
    """See the settings of a scope."""
    from haina.cli.config import get as command

    command(where, scope, as_json=as_json)


@config.command("set")
@reaching
def set_config(
    where: Where,
    pairs: Annotated[list[str], typer.Argument(metavar="KEY=VALUE...", help="KEY= takes a value away.")],
    node: Annotated[str | None, typer.Option(help="For one node.")] = None,
    group: Annotated[str | None, typer.Option(help="For a group of nodes.")] = None,
    expect: Annotated[int | None, typer.Option(min=0, help="Only if this is the version in force.")] = None,
    why: Why = "",
    hours: Annotated[float | None, typer.Option(help="Take it back after so many hours.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would change.")] = False,
    as_json: Json = False,
) -> None:
    """Change settings; nodes obey within a second or two."""
    from haina.cli.config import change, scope_of

    change(
        where,
        pairs,
        scope_of(node, group),
        expect=expect,
        why=why,
        hours=hours,
        dry_run=dry_run,
        as_json=as_json,
    )


@config.command("log")
@reaching
def log_config(where: Where, last: Last = 20, as_json: Json = False) -> None:
    """See who changed what, when and why."""
    from haina.cli.config import log as command

    command(where, last, as_json=as_json)


@config.command("rollback")
@reaching
def rollback_config(
    where: Where,
    version: Annotated[int, typer.Argument(metavar="VERSION", min=0)],
    why: Why = "",
    as_json: Json = False,
) -> None:
    """Go back to the settings of a version."""
    from haina.cli.config import rollback as command

    command(where, version, why, as_json=as_json)


@config.command("schema")
@reaching
def schema_config(where: Where, as_json: Json = False) -> None:
    """See what can be set, as a JSON schema."""
    from haina.cli.config import schema as command

    command(where, as_json=as_json)


# ------------------------------------------------------------------------------------------------ federation


@federation.command("start")
@reaching
def start(where: Where, name: Federation = None, why: Why = "", as_json: Json = False) -> None:
    """Let it go on."""
    from haina.cli.federation import command

    command(where, name, "start", why, as_json=as_json)


@federation.command("pause")
@reaching
def pause(where: Where, name: Federation = None, why: Why = "", as_json: Json = False) -> None:
    """Give out no more work for now; the open round goes on."""
    from haina.cli.federation import command

    command(where, name, "pause", why, as_json=as_json)


@federation.command("stop")
@reaching
def stop(where: Where, name: Federation = None, why: Why = "", as_json: Json = False) -> None:
    """End it."""
    from haina.cli.federation import command

    command(where, name, "stop", why, as_json=as_json)


@federation.command("result")
@reaching
def result(where: Where, name: Federation = None, as_json: Json = False) -> None:
    """Write what an exact learner (glm) found."""
    from haina.cli.federation import result as command

    command(where, name, as_json=as_json)
