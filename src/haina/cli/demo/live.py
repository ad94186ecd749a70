"""`haina demo`: a coordinator and eight sites, each a process of its own, learn digits together over mutual TLS on this machine.

One site turns hostile on the way. Another is killed and comes back. All that is shown is what an operator could ask the coordinator for, and what
this process itself does to the others.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

from haina.cli.demo.cast import Cast
from haina.cli.demo.files import Site, written
from haina.cli.demo.news import news
from haina.cli.demo.told import told
from haina.cli.demo.view import Scene, view
from haina.cli.reach import Where
from haina.cli.talk import console, say
from haina.errors import RunError
from haina.monitoring.summary import summary
from haina.node.link.api import Api
from haina.node.link.http import HttpLink
from haina.simulation.rundir import RunDir
from haina.strategy.record import RoundRecord, Verdict
from haina.wire import invitation
from haina.wire.messages import FederationInfo, Invite

#: Who attacks, and who is killed.
ATTACKER, VICTIM = "site-5", "site-4"
#: Seconds between two looks, and until everybody must be there.
_EVERY, _START = 0.2, 300.0


def demo(out: Path, rounds: int | None, seed: int) -> None:
    """Play the demo and explain it."""
    rounds, folder, begun = rounds or 24, RunDir(out), perf_counter()
    with folder.alone():
        folder.clear()
        processes = out / "demo-processes"
        shutil.rmtree(processes, ignore_errors=True)
        processes.mkdir(mode=0o700)
        console.rule("[bold]Haina: eight sites learn handwritten digits; one attacks, one is killed")
        with console.status("Dividing the digits"):
            sites = written(out, rounds, seed)
        say(
            f"As its operator sees it, from another terminal: {_haina()} status --watch --state {processes / 'coordinator'}"
        )
        scene = Scene(rounds, sites, {site.name: "" for site in sites})
        try:
            with Cast(processes) as cast, view(scene) as show:
                Play(folder, cast, scene, show, begun).run()
        except KeyboardInterrupt:
            say("Stopped. Every process that was started has ended")
            raise
        folder.summarise({**summary(scene.records), "seconds": round(perf_counter() - begun, 3)})
    told(folder, {ATTACKER})
    _by_hand(out)


@dataclass
class Play:
    """The demo as it runs.

    Args:
        folder: of the run.
        cast: the processes.
        scene: what is shown.
        show: shows it.
        begun: when it began, by `perf_counter`.
    """

    folder: RunDir
    cast: Cast
    scene: Scene
    show: Callable[[], None]
    begun: float

    def run(self) -> None:
        """From the first process to the last round."""
        self._tell("a coordinator starts: mutual TLS on 127.0.0.1, with an authority of its own")
        doors = ("--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0")
        self.cast.start("coordinator", "serve", "../federation.toml", "--state", "coordinator", *doors)
        # Its address: it is ready.
        self.cast.line("coordinator")
        where = Where(self.cast.folder / "coordinator")
        with where.api() as api:
            api.command("demo", "pause", "until all sites are there")
            for site in self.scene.sites:
                invitation.write(self.cast.folder / f"{site.name}.invite", api.invite(Invite(name=site.name)))
                self._join(site)
            self._tell("eight sites start; each has an invitation, which works once, and its own file")
            self._gather(api)
            api.command("demo", "start", "all sites are there")
            script, federation = self._script(), self._look(api)
            while federation.state == "running":
                next(script, None)
                time.sleep(_EVERY)
                federation = self._look(api)
        with where.reached(HttpLink) as link, (self.folder.path / "model.safetensors").open("wb") as file:
            assert federation.model is not None
            link.download("demo", federation.model, file)
        self._tell(f"the federation has ended after {self._closed} rounds")

    def _script(self) -> Iterator[None]:
        """What happens on the way: each `yield` is a look later."""
        sites = {site.name: site for site in self.scene.sites}
        while self._closed < self._attack - 1:
            yield
        self._does(ATTACKER, "sends the opposite")
        self._tell(
            f"from round {self._attack} on {ATTACKER} attacks: it sends the opposite of what it learnt"
        )
        while self._closed < max(1, self.scene.rounds * 2 // 5):
            yield
        self.cast.kill(VICTIM)
        self._does(VICTIM, "killed")
        self._tell(f"{VICTIM} is killed (SIGKILL) after round {self._closed}")
        while self._closed < self.scene.rounds * 3 // 5:
            yield
        self._join(sites[VICTIM])
        self._tell(f"{VICTIM} is started again after round {self._closed}; it needs no invitation")
        while self._verdict(VICTIM) in (None, Verdict.ABSENT):
            yield
        self._does(VICTIM, "learns")

    @property
    def _attack(self) -> int:
        return self.scene.rounds // 8 + 1

    @property
    def _closed(self) -> int:
        return len(self.scene.records)

    def _verdict(self, name: str) -> Verdict | None:
        clients = self.scene.records[-1].clients if self.scene.records else ()
        return next((client.verdict for client in clients if client.client == name), None)

    def _join(self, site: Site) -> None:
        self._does(site.name, "starts")
        invite, rows = f"{site.name}.invite", f"../{site.name}.npz"
        if site.name == ATTACKER:
            self.cast.start(site.name, "attack", str(self._attack), invite, rows)
        else:
            self.cast.start(site.name, "join", invite, "--data", rows)

    def _gather(self, api: Api) -> None:
        """Wait until every site has read its rows and said hello."""
        until, missing = perf_counter() + _START, {site.name for site in self.scene.sites}
        while missing:
            for node in api.nodes():
                if node.name in missing and node.examples:
                    missing.remove(node.name)
                    self._does(node.name, "learns")
            for name in missing:
                self.cast.check(name)
            if perf_counter() > until:
                raise RunError(
                    f"{', '.join(sorted(missing))} did not start within {_START:g} s",
                    remedy=f"See the logs in {self.cast.folder}",
                )
            self._show()
            time.sleep(_EVERY)

    def _look(self, api: Api) -> FederationInfo:
        """How the federation stands; what has closed since the last look is noted, and told."""
        self.cast.check("coordinator")
        federation = api.federations()[0]
        for number in range(self._closed + 1, federation.closed + 1):
            found = api.round("demo", number).record
            assert found is not None
            record = RoundRecord.from_json(found)
            self.folder.append(record)
            for words in news(self.scene.records, record):
                self._tell(words)
            self.scene.records.append(record)
        self._show()
        return federation

    def _does(self, name: str, what: str) -> None:
        self.scene.does[name] = what

    def _tell(self, words: str) -> None:
        self.scene.news.append(words)
        self._show()

    def _show(self) -> None:
        self.scene.seconds = perf_counter() - self.begun
        self.show()


def _by_hand(out: Path) -> None:
    console.rule("[bold]The same by hand")
    say(f"In {out}, where the files are, in a terminal each:")
    say(f"  {_haina()} serve federation.toml")
    say(f"  {_haina()} invite hospital-a")
    say(f"  {_haina()} join hospital-a.invite --data site-1.npz")
    say("The last two again for each further site; the first round opens when two are there.")
    say(f"With 30 clients, five of them hostile, in one process: {_haina()} demo --simulate")


def _haina() -> str:
    """The command, as it can be typed here."""
    return "haina" if shutil.which("haina") else str(Path(sys.executable).with_name("haina"))
