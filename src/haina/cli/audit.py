"""`haina audit`: attack a federation as its file runs it, and hold what is found against what is promised.

The exit code is 0 when the promise holds or was not put to the test, 1 when it is broken, and 3 when canaries could not tell: a check that can only
pass would be no check.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from haina.cli.talk import console, data, json_line, say
from haina.federation import Federation
from haina.monitoring.privacy import told
from haina.monitoring.text import number
from haina.simulation.rundir import replace_file

if TYPE_CHECKING:
    from haina.federation.audit import Progress as Told


def audit(
    file: Path,
    *,
    canaries: int,
    shadows: int,
    inversion: bool,
    seed: int | None,
    out: Path | None,
    as_json: bool,
) -> int:
    """Run the attacks that were asked for, and say what they found.

    Returns:
        The exit code.
    """
    from haina.federation.audit import inverted, members, with_canaries

    federation = Federation.read(file)
    if seed is None:
        # Coins that whoever trains could know beforehand would be none.
        seed = secrets.randbits(32)
        say(f"The canaries' coins are tossed anew; the same again: --seed {seed}")
    found: dict[str, Any] = {"federation": federation.name}
    if canaries:
        with _bar("Canaries") as on_step:
            audited = with_canaries(federation, canaries, seed=seed, on_round=on_step)
        found = audited.to_json()
    if shadows:
        with _bar("Shadow models") as on_step:
            found["membership"] = members(federation, shadows, seed=seed, on_model=on_step)
    if inversion:
        found["inversion"] = inverted(federation, seed=seed)
    for line in told(found):
        say(line)
    if out is not None:
        replace_file(out, json.dumps(found, indent=1, allow_nan=False).encode())
        say(f"The finding is in {out}, for the privacy officer's page: haina budget export --audit {out}")
    verdict = found.get("verdict", "")
    if as_json:
        json_line(found)
    elif verdict:
        data(
            f"claimed epsilon {number(found['claimed'])}  measured lower bound {found['lower_bound']:.3g}  verdict {verdict}"
        )
    return code(verdict)


def code(verdict: str) -> int:
    """The exit code that a verdict leaves with."""
    return {"": 0, "holds": 0, "violated": 1}.get(verdict, 3)


@contextmanager
def _bar(what: str) -> Iterator[Told]:
    """Progress on a terminal; silence elsewhere."""
    if not console.is_terminal:
        yield lambda done, whole: None
        return
    columns = (
        TextColumn(f"[bold]{what}"),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(what, total=None)
        yield lambda done, whole: progress.update(task, completed=done, total=whole)
