"""A node's life: say hello, ask, train, deliver; and start again from wherever it was stopped.

Everything that must survive a kill lies in the node's folder: credentials, the outbox, the last good settings, cached models. Everything else is
asked anew. The network may vanish at any moment and for any time (a hibernating laptop, a restarted coordinator): every call is repeated with back-
off until it answers, and nothing is repeated that would count twice.

Training runs in a process of its own (`haina.federation.bench`), so that a crash of a framework is a failed round and not a dead node.

Where updates leave as parts of secure sums, the trained update stays in memory, and the steps of the sum come as answers to the same question
(`_step`). Nothing of it survives a kill: that site has left the sum.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from threading import Event as Flag
from threading import Thread
from typing import BinaryIO, TypeVar

from haina.errors import HainaError, PrivacyError, Unreachable
from haina.node.backoff import delays
from haina.node.cache import Cache
from haina.node.link import Link
from haina.node.outbox import Outbox, Parcel
from haina.node.sealing import Masked, Sealing, words_of
from haina.node.trainer import Learnt, Trainer
from haina.privacy.secagg import SecAggError
from haina.wire.messages import (
    Ask,
    Event,
    Failed,
    Fate,
    Hello,
    Manifest,
    Sealed,
    SealedTask,
    Settings,
    Task,
    Welcome,
)
from haina.wire.refusal import Refusal

log = logging.getLogger("haina.node")

T = TypeVar("T")

#: Seconds of one long-poll.
WAIT = 50.0
#: Seconds between signs of life while a node trains.
_PULSE = 20.0
#: Refusals that pass by themselves.
PASSING = frozenset({"unavailable", "too_many", "internal", "full"})
#: Refusals of an upload that was broken on its way, and may be sent again.
_BROKEN = frozenset({"range", "conflict", "malformed"})
#: Tries of one upload before such a refusal is believed.
_TRIES = 6
#: Seconds of rest where the same question comes again: another replica has not heard of the answer yet.
_AGAIN = 0.1


class StoppedError(Exception):
    """The session was asked to stop."""


@dataclass
class Session:
    """One node in one federation.

    Args:
        connect: a fresh link to the coordinator, with the newest credentials; renews them first when that is due.
        folder: the node's own folder.
        hello: what the node says of itself, before it knows its rows.
        open: makes the trainer when the federation is known.
        rng: jitter.
        once: stop after one acknowledged update.
        tell: shows a line to a person.
        delivered: updates acknowledged so far.
        training: True while a round is trained.
        seal: makes this site's part in a secure sum of a trained update; None where there are none.
    """

    connect: Callable[[Link | None], Link]
    folder: Path
    hello: Hello
    open: Callable[[Welcome], Trainer]
    rng: Random
    once: bool = False
    tell: Callable[[str], None] = log.info
    delivered: int = 0
    training: bool = False
    seal: Callable[[Task, Learnt, Trainer], Sealing] | None = None
    _part: Sealing | None = None
    _declined: tuple[int, str] = (0, "")
    _stop: Flag = field(default_factory=Flag)
    _link: Link | None = None
    _settings: Settings = field(default_factory=lambda: Settings(version=0, values={}))

    def stop(self) -> None:
        """End the session at the next safe point; may be called from a signal handler."""
        self._stop.set()

    def run(self) -> str:
        """Take part until the federation ends, or the session is stopped. Returns why it ended, in words."""
        self._restore()
        try:
            return self._live()
        except StoppedError:
            return "stopped"
        finally:
            if self._link is not None:
                self._link.close()

    def _live(self) -> str:
        welcome = self._patiently(lambda link: link.hello(self.hello))
        self._apply(welcome.settings)
        with self.open(welcome) as trainer:
            examples = trainer.examples if trainer.guard is None else trainer.guard.examples(trainer.examples)
            hello = self.hello.model_copy(update={"examples": examples, "federation": welcome.federation})
            self._patiently(lambda link: link.hello(hello))
            self.tell(f"{welcome.name} takes part in {welcome.federation} with {trainer.examples} examples")
            folder = self.folder / welcome.federation
            outbox, cache = Outbox(folder / "outbox"), Cache(folder / "models")
            for parcel in outbox.waiting():
                self._deliver(outbox, parcel, trainer)
            while not (self.once and self.delivered):
                event = self._ask(hello)
                if event.finished:
                    return event.reason or "the federation has ended"
                if event.task is not None:
                    self._round(event.task, trainer, outbox, cache)
                if event.sealed is not None:
                    self._step(event.sealed, trainer, outbox)
                elif hello.mode == "periodic" and not self._part and not (self.once and self.delivered):
                    self._sleep(float(self._settings.values.get("report_interval", 300.0)))
                elif event.task is None:
                    self._sleep(event.retry)
            away = hello.model_copy(update={"mode": "away"})
            self._patiently(lambda link: link.hello(away))
        return "one update was delivered"

    # ------------------------------------------------------------------------------------------ one round

    def _ask(self, hello: Hello) -> Event:
        ask = Ask(
            federation=hello.federation or "",
            settings_version=self._settings.version,
            # A secure sum does not wait for this site's own time.
            wait=0.0 if hello.mode == "periodic" and self._part is None else WAIT,
        )
        event = self._patiently(lambda link: link.ask(ask), hello)
        if event.settings is not None:
            self._apply(event.settings)
        return event

    def _round(self, task: Task, trainer: Trainer, outbox: Outbox, cache: Cache) -> None:
        guard = trainer.guard
        if self._part is not None and self._part.fits(task):
            # Another replica has not heard yet that this is trained.
            self._sleep(_AGAIN)
            return
        self._part = None
        refusal = None if guard is None else guard.refusal(task.round)
        if refusal is not None:
            self._refuse(task, refusal)
            self._sleep(1.0)
            return

        def fetch(sha256: str) -> Path:
            def get(link: Link) -> Path:
                def append(path: Path, offset: int) -> None:
                    with path.open("r+b" if offset else "wb") as file:
                        link.download(task.federation, sha256, file, offset)

                return cache.get(sha256, append)

            return self._patiently(get)

        try:
            model = fetch(task.model)
            control = None if task.control is None else fetch(task.control)
        except Refusal as error:
            # The round ended meanwhile, and its model is no longer given out.
            self.tell(f"round {task.round}: {error}")
            self._sleep(1.0)
            return
        with self._pulse(task):
            trainer.threads(int(self._settings.values.get("threads") or 0))
            memory = outbox.memory()
            hidden = guard is not None and guard.hidden
            trained = (trainer.learn if hidden else trainer.train)(task, model, control, memory)
        if isinstance(trained, tuple):
            failed, words = trained
            self.tell(f"round {task.round}: {words}")
            self._say_failed(failed)
            return
        if isinstance(trained, Learnt):
            self._advertise(task, trained, trainer)
            return
        if guard is not None:
            try:
                guard.begin(task.round)
            except PrivacyError as error:
                self._refuse(task, error)
                return
        self._deliver(outbox, outbox.put(trained.manifest, trained.pieces, trained.memory), trainer)

    def _refuse(self, task: Task, error: PrivacyError) -> None:
        """Take no part in a round, and say why: all of it to the person here, and what was wrong to the operator."""
        self.tell(f"round {task.round}: {error}")
        self._say_failed(Failed(federation=task.federation, round=task.round, reason=words_of(error)))

    def _deliver(self, outbox: Outbox, parcel: Parcel, trainer: Trainer) -> None:
        manifest = parcel.manifest
        reason = self._send(manifest, lambda: parcel.body.open("rb"))
        if trainer.guard is not None:
            # Whatever became of it: it has left.
            trainer.guard.left(manifest.round)
        if reason is None:
            outbox.delivered(parcel)
            self.delivered += 1
            self.tell(f"round {manifest.round}: delivered ({manifest.bytes} bytes)")
        else:
            outbox.refused(parcel)
            self._say_refused(manifest, reason)

    def _send(self, manifest: Manifest, opened: Callable[[], BinaryIO]) -> str | None:
        """Upload until there is an answer: why it was refused; None when it counts."""
        tries = 0

        def send(link: Link) -> str | None:
            nonlocal tries
            tries += 1
            offset = 0
            if tries > 1:
                # A broken upload goes on where it stopped; one that was acknowledged unheard is done.
                here = link.received(manifest.federation, manifest.round)
                if here.done and here.sha256 == manifest.sha256:
                    return None
                offset = here.bytes if here.sha256 == manifest.sha256 else 0
            rate = int(self._settings.values.get("upload_bytes_per_second", 0))
            try:
                with opened() as body:
                    ack = link.upload(manifest, body, offset, rate=rate or None)
            except Refusal as error:
                if error.code in _BROKEN and tries < _TRIES:
                    raise Unreachable(error.what) from error
                raise
            return (ack.reason or "refused") if ack.fate is Fate.REFUSED else None

        try:
            return self._patiently(send)
        except Refusal as error:
            return str(error)

    def _say_refused(self, manifest: Manifest, reason: str) -> None:
        """Without a word the coordinator would go on to wait for this node, and to give it the same task."""
        self.tell(f"round {manifest.round}: the update was refused: {reason}")
        words = f"the update was refused: {reason}"[:1000]
        self._say_failed(Failed(federation=manifest.federation, round=manifest.round, reason=words))

    # ------------------------------------------------------------------------------------------ secure sums

    def _advertise(self, task: Task, learnt: Learnt, trainer: Trainer) -> None:
        """Say that a round is trained, and keep what was learnt for the steps that follow."""
        assert self.seal is not None
        part = self.seal(task, learnt, trainer)
        reason = self._say_sealed(part.advertise())
        if not reason:
            self._part = part
            self.tell(f"round {task.round}: trained; waiting to be summed with others")
            return
        # It came too late, or was started again in the middle of the round, and its first keys are gone.
        words = f"its keys were not taken: {reason}"[:1000]
        self._say_failed(Failed(federation=task.federation, round=task.round, reason=words))

    def _step(self, step: SealedTask, trainer: Trainer, outbox: Outbox) -> None:
        """Take the next step of a secure sum, or say why not."""
        part = self._part
        try:
            if part is None or not part.fits(step):
                raise SecAggError(
                    "order",
                    f"{step.stage} of round {step.round} is asked for, and this site has no secrets of it",
                    remedy="It was started again in the middle of the round; it will be there in the next",
                )
            if part.answered(step):
                self._sleep(_AGAIN)
                if isinstance(part.answer(step), Masked) and part.delivered:
                    return
            answer = part.answer(step)
        except PrivacyError as error:
            self._part = None
            self._decline(step, error)
            return
        if isinstance(answer, Sealed):
            refused = self._say_sealed(answer)
            if step.stage == "unmask":
                # Others may have been quicker, and enough.
                self.delivered += 1
            elif refused:
                self._part = None
            return
        self._upload(part, answer, trainer, outbox)

    def _upload(self, part: Sealing, masked: Masked, trainer: Trainer, outbox: Outbox) -> None:
        manifest = trainer.masked(part.task, masked)
        reason = self._send(manifest, lambda: io.BytesIO(masked.words))
        if trainer.guard is not None:
            trainer.guard.left(manifest.round)
        if reason is None:
            outbox.remember(part.memory)
            part.forget_words()
            self.tell(f"round {manifest.round}: delivered ({manifest.bytes} bytes, masked)")
        else:
            self._part = None
            self._say_refused(manifest, reason)

    def _say_sealed(self, sealed: Sealed) -> str:
        """Send a message of a secure sum: why the coordinator does not take it; empty when it does."""
        try:
            ack = self._patiently(lambda link: link.seal(sealed))
            reason = (ack.reason or "refused") if ack.fate is Fate.REFUSED else ""
        except Refusal as error:
            reason = str(error)
        if reason:
            self.tell(f"round {sealed.round}: {reason}")
        return reason

    def _decline(self, step: SealedTask, error: PrivacyError) -> None:
        """Take no further part, and say why: to the person here, and to the operator."""
        if self._declined == (step.round, step.stage):
            # Asked again and again, it says no more.
            self._sleep(1.0)
            return
        self._declined = step.round, step.stage
        self.tell(f"round {step.round}: this site goes no further. {error}")
        about = {"federation": step.federation, "round": step.round, "reason": words_of(error)}
        if step.stage in ("share", "upload"):
            self._say_failed(Failed.model_validate(about))
        else:
            self._say_sealed(Sealed.model_validate({**about, "stage": step.stage}))

    def _say_failed(self, failed: Failed) -> None:
        try:
            self._patiently(lambda link: link.fail(failed))
        except Refusal as error:
            self.tell(f"round {failed.round}: {error}")

    @contextmanager
    def _pulse(self, task: Task) -> Iterator[None]:
        """Signs of life, and news of settings, while the node trains."""
        over = Flag()

        def beat() -> None:
            while not over.wait(_PULSE):
                ask = Ask(
                    federation=task.federation,
                    settings_version=self._settings.version,
                    wait=0.0,
                    idle=False,
                    doing=f"training round {task.round}",
                )
                try:
                    link = self._link or self.connect(None)
                    event = link.ask(ask)
                except HainaError:
                    continue
                if event.settings is not None:
                    self._apply(event.settings)

        thread = Thread(target=beat, name="haina-pulse", daemon=True)
        thread.start()
        self.training = True
        try:
            yield
        finally:
            self.training = False
            over.set()
            thread.join()

    # ------------------------------------------------------------------------------------------ patience

    def _patiently(self, call: Callable[[Link], T], hello: Hello | None = None) -> T:
        """Call until there is an answer, however long the coordinator is away.

        Args:
            call: what to ask of the link.
            hello: said again after an outage, for the coordinator may be another.

        Raises:
            Refusal: the coordinator will not grant it, and waiting changes nothing.
            StoppedError: the session was asked to stop.
        """
        waits = delays(self.rng)
        since_hello = False
        while True:
            if self._stop.is_set():
                raise StoppedError
            try:
                self._link = self.connect(self._link)
                if since_hello and hello is not None:
                    self._apply(self._link.hello(hello).settings)
                return call(self._link)
            except Unreachable as error:
                reason, since_hello, asked = str(error), True, 0.0
            except Refusal as error:
                if error.code not in PASSING:
                    raise
                reason, asked = str(error), min(error.retry, 60.0)
            wait = max(next(waits), asked)
            self.tell(f"{reason} Trying again in {wait:.1f} s.")
            self._sleep(wait)

    def _sleep(self, seconds: float) -> None:
        if seconds > 0 and self._stop.wait(seconds):
            raise StoppedError

    # ------------------------------------------------------------------------------------------ settings

    def _apply(self, settings: Settings) -> None:
        if settings.version == self._settings.version and settings.values == self._settings.values:
            return
        self._settings = settings
        self.folder.mkdir(parents=True, exist_ok=True)
        draft = self.folder / ".settings.new"
        draft.write_text(settings.model_dump_json(), encoding="utf-8")
        draft.replace(self.folder / "settings.json")

    def _restore(self) -> None:
        try:
            text = (self.folder / "settings.json").read_text(encoding="utf-8")
            self._settings = Settings.model_validate_json(text)
        except (FileNotFoundError, ValueError):
            return
