"""A station: one federation's live side. It answers "what is there to do" from memory, and runs the rounds in a thread of its own.

The store is the truth; what is in memory here is a view of it, read again whenever somebody (this process, or another replica) says that it
changed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TypeVar

from haina.coordinator.hosted import Hosted
from haina.coordinator.rounds import Rounds
from haina.coordinator.sealing import Stage
from haina.coordinator.steps import Steps
from haina.coordinator.store import FederationRow, RoundRow, Store
from haina.errors import HainaError
from haina.wire.messages import SealedTask, Task

log = logging.getLogger("haina.station")
T = TypeVar("T")

#: Seconds between looks at the store where nothing says that it changed.
_LOOK = 1.0


class Bell:
    """Wakes everybody who waits; whoever comes later waits for the next ring."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def ring(self) -> None:
        """Wake all."""
        event, self._event = self._event, asyncio.Event()
        event.set()

    async def wait(self, seconds: float) -> None:
        """Return at the next ring, or after so many seconds."""
        await within(self._event, seconds)


def _in_loop(loop: asyncio.AbstractEventLoop, call: Callable[[int], None], number: int) -> None:
    with suppress(RuntimeError):  # The loop has ended.
        loop.call_soon_threadsafe(call, number)


async def within(event: asyncio.Event, seconds: float) -> None:
    """Wait for an event, or for so many seconds. Not `wait_for`, which before Python 3.12 may swallow a cancellation that comes with the event."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()


@dataclass
class View:
    """What is known of a federation without asking the store.

    Args:
        federation: its row.
        row: the round under way.
        task: what it asks of those who are invited.
        invited: their names; None where anybody is.
        answered: who has sent an update for it, or failed.
        steps: what members of its secure sums are told in this stage.
        sent: who has answered in this stage.
        left: who goes no further.
    """

    federation: FederationRow
    row: RoundRow | None = None
    task: Task | None = None
    invited: frozenset[str] | None = None
    answered: set[str] = field(default_factory=set)
    steps: Steps | None = None
    sent: set[str] = field(default_factory=set)
    left: set[str] = field(default_factory=set)

    def task_of(self, node: str) -> Task | None:
        """The task that waits for a node."""
        if self.row is None or self.row.state != "open" or node in self.answered:
            return None
        if self.invited is not None and node not in self.invited:
            return None
        if self.steps is not None and (self.steps.sums.stage.name != "advertise" or node in self.sent):
            return None
        return self.task

    def step_of(self, node: str, now: float) -> SealedTask | None:
        """The next step of a secure sum that waits for a node."""
        if self.steps is None or self.row is None or self.row.state != "open" or node not in self._missing:
            return None
        return self.steps.task(node, now)

    def heard(self, round: int, node: str) -> bool:
        """False when the store has nothing of a node for a round as far as is known here; another replica may know better, as the commit will say."""
        return self.row is None or self.row.number != round or node in self.answered

    @property
    def complete(self) -> bool:
        """True when the open round has all it waits for."""
        if self.row is None:
            return False
        if self.steps is not None:
            ready = self.steps.sums.stage.name == "advertise" and len(self.sent) >= self.row.target
            return ready or not self._missing
        most = self.row.target if self.invited is None else min(self.row.target, len(self.invited))
        return len(self.answered) >= most

    @property
    def stage(self) -> tuple[int, str] | None:
        """Which stage of which round; None without a round, or without secure sums."""
        return None if self.steps is None else self.steps.key

    @property
    def _missing(self) -> frozenset[str]:
        assert self.steps is not None
        sums = self.steps.sums
        sent = self.answered if sums.stage.name == "upload" else self.sent
        return sums.wanted - sent - self.left


class Station:
    """One federation, running.

    Args:
        hosted: the federation.
        rounds: its rounds.
        store: what is remembered.
        clock: seconds since 1970.
        happened: told of each thing that an operator may want to know: (action, subject, detail).
    """

    def __init__(
        self,
        hosted: Hosted,
        rounds: Rounds,
        store: Store,
        clock: Callable[[], float],
        happened: Callable[[str, str, dict[str, object]], None],
    ) -> None:
        self.hosted, self.rounds = hosted, rounds
        self._store, self._clock, self._happened = store, clock, happened
        federation = store.federation(hosted.name)
        assert federation is not None
        self.view = View(federation)
        self.bell = Bell()
        #: When a task was first given out: (round, node) -> seconds since 1970.
        self.given: dict[tuple[int, str], float] = {}
        self._opened = 0.0
        self._poke = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"haina-{hosted.name}")
        self._runner: asyncio.Task[None] | None = None

    @property
    def name(self) -> str:
        """The federation's name."""
        return self.hosted.name

    def start(self) -> None:
        """Begin to run rounds."""
        loop = asyncio.get_running_loop()
        self.rounds.claimed = lambda number: _in_loop(loop, self._closing, number)
        self._runner = asyncio.create_task(self._run(), name=f"haina-{self.name}")

    async def close(self) -> None:
        """Stop running rounds; one that is closing is finished first."""
        if self._runner is not None:
            self._runner.cancel()
            with suppress(asyncio.CancelledError):
                await self._runner
        self._thread.shutdown(wait=True)
        self.hosted.close()

    def poke(self) -> None:
        """Look at the store now: something changed."""
        self._poke.set()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            changed = await self._soundly(loop.run_in_executor(self._thread, self.rounds.advance))
            # Also after an error: another replica may have gone on.
            await self._soundly(self.look())
            if changed:
                continue
            await within(self._poke, self._patience())
            self._poke.clear()

    async def _soundly(self, work: Awaitable[T]) -> T | None:
        """Await; a defect in one federation must not end the coordinator, nor this federation for good."""
        try:
            return await work
        except HainaError as error:
            log.warning("%s: %s", self.name, error)
        except Exception:
            log.exception("%s: the round could not go on", self.name)
        return None

    def _closing(self, number: int) -> None:
        """A round closes here from now on: an update that comes too late for it is told so, before the store is asked."""
        row = self.view.row
        if row is not None and row.number == number:
            self.view = replace(self.view, row=replace(row, state="closing"))

    def _patience(self) -> float:
        row, every = self.view.row, self.rounds.pace().every
        if row is None:
            # Every look may open a round; one by schedule is due at a known moment.
            due = self._opened + every - self._clock()
            return min(_LOOK, due) if every and due > 0 else _LOOK
        stage = Stage.of(row)
        left = (row.deadline if stage is None else stage.until) - self._clock()
        # Past the deadline somebody else closes it, or it could not be closed just now.
        return min(_LOOK, max(0.01, left)) if left > 0 else _LOOK

    async def look(self) -> None:
        """Read the view again, and wake those who wait for a task if there is a new one."""
        loop = asyncio.get_running_loop()
        before = self.view
        view = await loop.run_in_executor(self._thread, self._read)
        # What this process answered since the read began must not be forgotten.
        if before.row is not None and view.row is not None and before.row.number == view.row.number:
            view.answered |= before.answered
            view.left |= before.left
            if before.stage == view.stage:
                view.sent |= before.sent
        self.view = view
        if view.row is not None:
            self._opened = view.row.opened
        new_round = (before.row and before.row.number) != (view.row and view.row.number)
        if before.stage != view.stage and not new_round:
            self.bell.ring()
        if new_round or before.federation.state != view.federation.state:
            self.given = {
                key: when for key, when in self.given.items() if view.row and key[0] >= view.row.number - 8
            }
            if before.row is not None and view.federation.closed >= before.row.number:
                self._happened("round.closed", self.name, {"round": before.row.number})
            if view.row is not None and new_round:
                self._happened("round.opened", self.name, {"round": view.row.number})
            self.bell.ring()

    def _read(self) -> View:
        federation = self._store.federation(self.name)
        assert federation is not None
        row = self._store.current_round(self.name)
        if row is None:
            return View(federation)
        heard = self._store.contributions(self.name, row.number)
        view = View(
            federation,
            row,
            Task.model_validate(row.task),
            None if self.rounds.pace().buffered else frozenset(row.roster),
            {contribution.node for contribution in heard},
        )
        if row.stage is None:
            return view
        sums = self.rounds.sums(row, heard)
        steps = self.view.steps
        # What a stage passes on does not change while it lasts, and may be long.
        if steps is None or steps.key != (row.number, sums.stage.name):
            steps = Steps.read(sums, self._store)
        return replace(view, steps=steps, sent=set(sums.sent[sums.stage.name]), left=set(sums.left))
