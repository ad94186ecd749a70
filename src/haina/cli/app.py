"""The commands, and nothing behind them: each imports its room when it is called, so that help is quick."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from haina import __version__
from haina.cli import nouns
from haina.cli.fate import fate
from haina.cli.stats import stats

app = typer.Typer(
    name="haina",
    help="Federated learning whose centre is the dynamic model update: private, robust, fast, explained.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Json = nouns.Json
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run, for example runs/digits.")]


class Engine(StrEnum):
    """Where the workers of a simulation run."""

    LOCAL = "local"
    RAY = "ray"


class Executor(StrEnum):
    """What trains a model."""

    AUTO = "auto"
    JAX = "jax"
    TORCH = "torch"


class Door(StrEnum):
    """The two doors of a coordinator."""

    HTTP = "http"
    GRPC = "grpc"


def _version(show: bool) -> None:
    if show:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder of the run.")] = Path("runs/demo"),
    rounds: Annotated[
        int | None, typer.Option(min=1, help="Rounds to run; 24, or 60 with --simulate.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Another seed, another division of the data.")] = 0,
    simulate: Annotated[
        bool, typer.Option("--simulate", help="30 clients in one process, five of them attack.")
    ] = False,
) -> None:
    """Watch a coordinator and eight sites learn handwritten digits while one attacks and one is killed."""
    if simulate:
        from haina.cli.demo.simulated import demo as command
    else:
        from haina.cli.demo.live import demo as command

    command(out, rounds, seed)


@app.command()
def new(
    name: Annotated[Path, typer.Argument(metavar="NAME", help="Folder to make.")],
    template: Annotated[str, typer.Option(help="One of jax, torch, glm, forest, r.")] = "jax",
) -> None:
    """Make a project: a federation file, a model and data to replace with your own."""
    from haina.cli.new import new as command

    command(name, template)


@app.command()
def run(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A federation file.")] = Path(
        "federation.toml"
    ),
    out: Annotated[Path | None, typer.Option(help="Folder of the run; runs/NAME if not given.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in the folder.")] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Start over, forgetting the run there.")
    ] = False,
    workers: Annotated[int | None, typer.Option(min=1, max=1024, help="Processes that train.")] = None,
    engine: Annotated[
        Engine | None, typer.Option(help="Where they run: on this machine, or on a Ray cluster.")
    ] = None,
    executor: Annotated[
        Executor | None, typer.Option(help="What trains, in place of what the file says.")
    ] = None,
    profile: Annotated[bool, typer.Option("--profile", help="Say at the end where the time went.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No talk; errors only.")] = False,
    as_json: Json = False,
) -> None:
    """Simulate a federation; killed at any moment, it resumes where it was."""
    from haina.cli.run import How
    from haina.cli.run import run as command

    how = How(engine and engine.value, workers, executor and executor.value)
    command(
        file,
        out,
        resume=resume,
        overwrite=overwrite,
        how=how,
        quiet=quiet,
        profiled=profile,
        as_json=as_json,
    )


@app.command()
def report(
    folder: RunFolder,
    out: Annotated[Path | None, typer.Option(help="Where to write; RUN/report if not given.")] = None,
    threshold: Annotated[float, typer.Option(min=0, max=1, help="The red dashed line.")] = 0.9,
    as_json: Json = False,
) -> None:
    """Write pictures and a page that explain a run."""
    from haina.cli.report import report as command

    command(folder, out, threshold, as_json=as_json)


@app.command()
def audit(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A federation file.")] = Path(
        "federation.toml"
    ),
    canaries: Annotated[
        int, typer.Option(min=0, help="Clients that are looked for in the models; 0 for none.")
    ] = 1000,
    shadows: Annotated[
        int, typer.Option(min=0, help="Shadow models for membership inference; 16 or more, 0 for none.")
    ] = 0,
    inversion: Annotated[bool, typer.Option("--inversion", help="Try to read rows off updates.")] = False,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Of the canaries' coins; tossed anew if not given.")
    ] = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the finding here, as JSON.")] = None,
    as_json: Json = False,
) -> None:
    """Attack a federation, and hold what is found against the privacy that it promises.

    Leaves with 1 if the promise is broken, and with 3 if so many canaries cannot tell.
    """
    from haina.cli.audit import audit as command

    raise typer.Exit(
        command(
            file,
            canaries=canaries,
            shadows=shadows,
            inversion=inversion,
            seed=seed,
            out=out,
            as_json=as_json,
        )
    )


@app.command()
def runs(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A folder of runs, or one run.")] = Path(
        "runs"
    ),
    profile: Annotated[bool, typer.Option("--profile", help="Say where the time of each run went.")] = False,
    as_json: Json = False,
) -> None:
    """List the models that simulations have made, with their SHA-256."""
    from haina.cli.runs import profiles
    from haina.cli.runs import runs as command

    (profiles if profile else command)(folder, as_json=as_json)


@app.command()
def serve(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Federation files.")],
    state: Annotated[
        Path | None, typer.Option(help="Folder of all that must not be lost; haina-state if not given.")
    ] = None,
    http: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Where the HTTP door listens; 127.0.0.1:8443.")
    ] = None,
    grpc: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Where the gRPC door listens; 127.0.0.1:8444.")
    ] = None,
    name: Annotated[
        list[str] | None,
        typer.Option(
            metavar="HOST", help="By which sites reach this machine; may be repeated, the best first."
        ),
    ] = None,
    database: Annotated[
        str | None,
        typer.Option(metavar="URL", help="PostgreSQL, for several replicas; else SQLite in --state."),
    ] = None,
    log_format: Annotated[str | None, typer.Option(help="text or json.")] = None,
    log_level: Annotated[str | None, typer.Option(help="debug, info, warning or error.")] = None,
    config: Annotated[Path | None, typer.Option(help="Static settings; haina.toml if it is there.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Say in one JSON line that it is ready.")] = False,
) -> None:
    """Run a coordinator; killed at any moment, it goes on where it was."""
    from haina.cli.serve import serve as command

    said = {
        "state": state,
        "http": http,
        "grpc": grpc,
        "names": tuple(name) if name else None,
        "database": database,
        "log_format": log_format,
        "log_level": log_level,
    }
    command(files, said, config, as_json=as_json)


@app.command()
def join(
    where: Annotated[
        Path, typer.Argument(metavar="INVITATION", help="The .invite file, or the folder that it has become.")
    ],
    data: Annotated[
        str | None,
        typer.Option(metavar="SOURCE", help="This site's rows, such as patients.csv; they stay here."),
    ] = None,
    state: Annotated[
        Path | None,
        typer.Option(help="Folder of key and certificate; haina-node-NAME beside the invitation."),
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="End after one update.")] = False,
    daemon: Annotated[bool, typer.Option("--daemon", help="Stay when the federation has ended.")] = False,
    print_unit: Annotated[
        bool, typer.Option("--print-unit", help="Print a systemd unit that does this, and end.")
    ] = False,
    door: Annotated[Door, typer.Option(help="Which door of the coordinator to use.")] = Door.HTTP,
    periodic: Annotated[
        bool, typer.Option("--periodic", help="Train at this site's own times (setting report_interval).")
    ] = False,
    folder: Annotated[Path, typer.Option(help="Where this site's own task.py lies.")] = Path(),
    budget: Annotated[
        float | None,
        typer.Option(metavar="EPSILON", help="What all federations together may learn of these rows."),
    ] = None,
    delta: Annotated[float, typer.Option(help="The chance that --budget does not hold.")] = 0.0,
    dataset: Annotated[str, typer.Option(help="What the owner calls these rows.")] = "",
    peers: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Keys of the other sites; no others are summed with.")
    ] = None,
) -> None:
    """Take part in a federation with one's own rows."""
    from haina.cli.join import join as command
    from haina.node.guard import Wishes

    command(
        where,
        data,
        state,
        once=once,
        daemon=daemon,
        print_unit=print_unit,
        door=door.value,
        periodic=periodic,
        tasks=folder,
        wishes=Wishes(budget, delta, dataset),
        peers=peers,
    )


@app.command()
def doctor(as_json: Json = False) -> None:
    """Say what this machine has, what is missing, and how to get it."""
    from haina.cli.doctor import doctor as command

    command(as_json=as_json)


app.add_typer(stats, name="stats", help="Exact statistics of several tables, as if their rows lay in one.")
nouns.register(app)
app.add_typer(fate, name="fate", help="Work with FATE: data, jobs and models for it, and models back.")
