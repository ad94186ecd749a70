"""`haina fate`: data, jobs and models for FATE, and models back from it."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

fate = typer.Typer(add_completion=False, no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="End with one JSON line on standard output.")]
Url = Annotated[str, typer.Option(metavar="URL", help="Of FATE Flow.")]
Insecure = Annotated[bool, typer.Option("--insecure", help="Allow plain HTTP to another machine.")]
Patience = Annotated[float, typer.Option(min=1, help="Seconds to wait for the end of a job.")]
Columns = Annotated[
    Path | None, typer.Option(metavar="FILE", help="columns.json of the export, for the names of features.")
]

_HERE = "http://127.0.0.1:9380"


class Kind(StrEnum):
    """What a model becomes in Haina."""

    GLM = "glm"
    LOGISTIC = "logistic"


class Version(StrEnum):
    """Versions of FATE."""

    V1 = "1"
    V2 = "2"


@fate.command("export")
def export(
    files: Annotated[
        list[Path], typer.Argument(metavar="CSV...", help="A file for each site, the guest's first.")
    ],
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Where to write.")],
    label: Annotated[str, typer.Option(help="Column of outcomes, 0 or 1.")] = "y",
    id: Annotated[
        str | None, typer.Option(help="Column of identifiers; rows are counted if not given.")
    ] = None,
    feature: Annotated[
        list[str] | None, typer.Option(metavar="COLUMN", help="May be repeated; all others if not given.")
    ] = None,
    guest: Annotated[int, typer.Option(min=1, help="Party number of the first file's site.")] = 9999,
    host: Annotated[
        list[int] | None,
        typer.Option(
            min=1,
            help="Of the others, in order, whether their files are here or not; counted down from 9998.",
        ),
    ] = None,
    arbiter: Annotated[int | None, typer.Option(min=1, help="Of who adds up; the first host's.")] = None,
    namespace: Annotated[str, typer.Option(help="Of the tables in FATE.")] = "haina",
    on_server: Annotated[
        str | None,
        typer.Option(metavar="FOLDER", help="Where the files lie on FATE's machine; --out if there."),
    ] = None,
    site: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only the table of one site, such as host; no job.")
    ] = None,
    epochs: Annotated[int, typer.Option(min=1, help="And rounds.")] = 20,
    learning_rate: Annotated[float, typer.Option(help="Of SGD.")] = 0.1,
    alpha: Annotated[float, typer.Option(min=0, help="L2 penalty.")] = 0.0,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Rows a step; all if not given.")] = None,
    evaluate: Annotated[bool, typer.Option("--evaluate/--no-evaluate", help="End with AUC.")] = True,
    dataio: Annotated[
        bool, typer.Option("--dataio", help="DataIO in the 1.x job, for FATE before 1.7.")
    ] = False,
    r_script_url: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Add the Haina task: each site's R service fits too (2.x)."),
    ] = None,
    timeout: Annotated[float, typer.Option(help="Seconds that R may take.")] = 300.0,
    r_format: Annotated[str, typer.Option(help="In which R is asked: binary or json.")] = "binary",
    as_json: Json = False,
) -> None:
    """Write tables, upload configurations and HomoLR jobs (1.x and 2.x), and the federation file that does the same."""
    from haina.cli.fate.files import Plan
    from haina.cli.fate.files import export as command

    columns, hosts = tuple(feature or ()), tuple(host or ())
    plan = Plan(files, out, label, id, columns, guest, hosts, arbiter, namespace, on_server, site)
    training = {
        "epochs": epochs,
        "learning_rate": learning_rate,
        "alpha": alpha,
        "batch_size": batch_size,
    }
    task = None if r_script_url is None else (r_script_url, timeout, r_format)
    command(plan, training, evaluate=evaluate, dataio=dataio, r=task, as_json=as_json)


@fate.command("import-model")
def import_model(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="JSON of 2.x, or HomoLogisticRegressionParam of 1.x.")
    ],
    out: Annotated[Path, typer.Option(metavar="FILE", help="Where to write the model (.safetensors).")],
    to: Annotated[Kind, typer.Option(help="What it becomes.")] = Kind.GLM,
    columns: Columns = None,
    as_json: Json = False,
) -> None:
    """Make a model of Haina from a HomoLR model."""
    from haina.cli.fate.files import import_model as command

    command(file, out, to.value, columns, as_json=as_json)


@fate.command("export-model")
def export_model(
    file: Annotated[
        Path, typer.Argument(metavar="MODEL", help="A .safetensors file of a glm or logistic model.")
    ],
    out: Annotated[Path, typer.Option(metavar="FILE", help="Where to write.")],
    version: Annotated[Version, typer.Option(help="Of FATE.")] = Version.V2,
    columns: Columns = None,
    as_json: Json = False,
) -> None:
    """Make a HomoLR model from a model of Haina: protobuf for 1.x, JSON for 2.x."""
    from haina.cli.fate.files import export_model as command

    command(file, out, int(version.value), columns, as_json=as_json)


@fate.command("upload")
def upload(
    files: Annotated[list[Path], typer.Argument(metavar="CONF...", help="Upload configurations for 2.x.")],
    url: Url = _HERE,
    insecure: Insecure = False,
    patience: Patience = 600.0,
    as_json: Json = False,
) -> None:
    """Have FATE Flow take files of its machine up as tables."""
    from haina.cli.fate.jobs import upload as command

    command(url, files, insecure=insecure, patience=patience, as_json=as_json)


@fate.command("submit")
def submit(
    files: Annotated[
        list[Path], typer.Argument(metavar="DAG | DSL CONF", help="A job of 2.x, or the two of 1.x.")
    ],
    url: Url = _HERE,
    follow: Annotated[bool, typer.Option("--follow/--no-follow", help="Wait for its end.")] = True,
    model: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Then write the guest's model here (2.x).")
    ] = None,
    task: Annotated[str, typer.Option(help="Whose model.")] = "homo_lr_0",
    insecure: Insecure = False,
    patience: Patience = 3600.0,
    as_json: Json = False,
) -> None:
    """Start a job, and see it through."""
    from haina.cli.fate.jobs import submit as command

    command(
        url,
        files,
        follow=follow,
        model=model,
        task=task,
        insecure=insecure,
        patience=patience,
        as_json=as_json,
    )


@fate.command("stop")
def stop(
    job: Annotated[str, typer.Argument(metavar="JOB")],
    url: Url = _HERE,
    version: Annotated[Version, typer.Option(help="Of FATE.")] = Version.V2,
    insecure: Insecure = False,
) -> None:
    """End a job."""
    from haina.cli.fate.jobs import stop as command

    command(url, job, int(version.value), insecure=insecure)
