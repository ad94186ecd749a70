"""`haina join`: take part with one's own rows; they stay here."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path
from random import SystemRandom
from types import FrameType
from typing import Literal

from haina.alone import alone
from haina.cli.talk import data, say
from haina.cli.unit import unit
from haina.errors import ConfigError
from haina.node.enrolment import Address, folder_of, unused, use
from haina.node.guard import Wishes
from haina.node.join import Line, Member, check_source
from haina.node.peers import told
from haina.wire.identity import Credentials
from haina.wire.messages import Role


def join(
    where: Path,
    source: str | None,
    state: Path | None,
    *,
    once: bool,
    daemon: bool,
    print_unit: bool,
    door: Literal["http", "grpc"],
    periodic: bool,
    tasks: Path,
    wishes: Wishes | None = None,
    peers: Path | None = None,
    member: Callable[..., Member] = Member,
) -> None:
    """Take part until the federation ends, or a signal comes.

    Args:
        where: an invitation, or the folder that was made with one.
        source: where the rows are; needed by nodes.
        state: the folder, if it shall be another than `haina-node-NAME` beside the invitation.
        once: end after one acknowledged update.
        daemon: go on for ever.
        print_unit: print a systemd unit that does this, and do nothing else.
        door: which door of the coordinator to use.
        periodic: train at this site's own times.
        tasks: folder with the site's own `task.py`.
        wishes: of the owner of the rows: a budget, and what the rows are called.
        peers: a file with the keys of the other sites.
        member: who takes part; the demo has an attacker.
    """
    if once and (daemon or print_unit):
        raise ConfigError("--once ends after one update, and a daemon never", allowed="one of them")
    wishes = wishes or Wishes()
    wishes.budget("owner")
    listed = None if peers is None else told(peers)
    folder = folder_of(where, state)
    if not where.exists() and not (folder / Credentials.FILE).exists():
        raise ConfigError(f"there is no file {where}", remedy="Name the .invite file that you were given")
    if source is not None:
        check_source(source)
    if print_unit:
        if source is None:
            raise ConfigError("--data is missing", allowed="this site's rows, such as --data patients.csv")
        data(unit(where, source, folder, tasks, door, periodic=periodic, more=_more(wishes, peers)))
        say("Keep it as /etc/systemd/system/haina-node.service, then: systemctl enable --now haina-node")
        return
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with alone(folder, "--state"):
        invited = unused(where, folder, time.time())
        role = Credentials.load(folder).role if invited is None else invited.role
        if role is Role.NODE and source is None:
            raise ConfigError("--data is missing", allowed="this site's rows, such as --data patients.csv")
        if invited is not None:
            use(invited, folder)
            say(f"{invited.name} is known to the coordinator now; its key and certificate are in {folder}")
            say(f"fingerprint of the coordinator's authority, to compare by telephone: {invited.fingerprint}")
        if role is not Role.NODE:
            say(f"Next: haina status --credentials {folder}")
            return
        assert source is not None
        line = Line(folder, Credentials.load(folder), Address.load(folder), door)
        asked = {"once": once, "daemon": daemon, "periodic": periodic, "wishes": wishes, "peers": listed}
        _run(member(line, source, tasks, SystemRandom(), say, **asked))


def _more(wishes: Wishes, peers: Path | None) -> list[str]:
    """The options of privacy, as a unit repeats them."""
    words = (
        [] if wishes.epsilon is None else ["--budget", f"{wishes.epsilon!r}", "--delta", f"{wishes.delta!r}"]
    )
    words += ["--dataset", wishes.dataset] if wishes.dataset else []
    return words + ([] if peers is None else ["--peers", str(peers.resolve())])


def _run(member: Member) -> None:
    """Take part; signals end it, the second at once."""
    heard: list[int] = []

    def end(number: int, _frame: FrameType | None) -> None:
        heard.append(number)
        for each in (signal.SIGINT, signal.SIGTERM):
            signal.signal(each, signal.SIG_DFL)
        member.stop()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)
    reason = member.run()
    say(f"Ended: {reason}")
    if heard == [signal.SIGINT]:
        raise SystemExit(130)
