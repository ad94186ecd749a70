"""The commands, and nothing behind them: each imports its room when it is called, so that help is quick."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from haina import __version__

app = typer.Typer(
    name="haina",
    help="Federated learning whose centre is the dynamic model update: private, robust, fast, explained.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Json = Annotated[bool, typer.Option("--json", help="End with one JSON line on standard output.")]
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run, for example runs/digits.")]


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
    rounds: Annotated[int, typer.Option(min=1, help="Rounds to run.")] = 60,
    seed: Annotated[int, typer.Option(min=0, help="Another seed, another division of the data.")] = 0,
) -> None:
    """Watch 30 clients learn handwritten digits together while five of them attack."""
    from haina.cli.demo import demo as command

    command(out, rounds, seed)


@app.command()
def new(
    name: Annotated[Path, typer.Argument(metavar="NAME", help="Folder to make.")],
    template: Annotated[str, typer.Option(help="One of jax, torch, glm, forest.")] = "jax",
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
    workers: Annotated[int | None, typer.Option(min=1, max=256, help="Processes that train.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No talk; errors only.")] = False,
    as_json: Json = False,
) -> None:
    """Simulate a federation; killed at any moment, it resumes where it was."""
    from haina.cli.run import run as command

    command(file, out, resume=resume, overwrite=overwrite, workers=workers, quiet=quiet, as_json=as_json)


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
def models(
    runs: Annotated[Path, typer.Argument(metavar="RUNS", help="A folder of runs, or one run.")] = Path(
        "runs"
    ),
    as_json: Json = False,
) -> None:
    """List the models that runs have made, with their SHA-256."""
    from haina.cli.models import models as command

    command(runs, as_json=as_json)


@app.command()
def doctor(as_json: Json = False) -> None:
    """Say what this machine has, what is missing, and how to get it."""
    from haina.cli.doctor import doctor as command

    command(as_json=as_json)
