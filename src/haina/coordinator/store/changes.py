"""News of what was committed, whoever committed it: topics "round:FEDERATION", "settings", "nodes" and "audit".

SQLite has one process, so a topic is told right after its commit. PostgreSQL tells all replicas by LISTEN and NOTIFY (one connection, one thread).
While that connection is away nothing is told, so every topic is told once when it is back, and it tries to come back every second. The trap: news
says that something may have changed, never what; a listener reads the store, and must not mind news without a change.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable

import sqlalchemy as sa

from haina.coordinator.store.database import CHANNEL

#: Called in a thread of the store's with a topic; it must return at once, and may not call the store.
Listener = Callable[[str], None]

log = logging.getLogger(__name__)

#: Seconds between two tries to connect, and between two looks at whether to end.
_RETRY = 1.0
_TICK = 0.2


class Changes:
    """Who wants news, and the thread that hears it."""

    def __init__(self) -> None:
        self._listeners: list[Listener] = []
        self._ending = threading.Event()
        self._thread: threading.Thread | None = None

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Tell `listener` every topic from now on; what is returned ends it."""
        self._listeners = [*self._listeners, listener]

        def end() -> None:
            self._listeners = [other for other in self._listeners if other is not listener]

        return end

    def tell(self, topic: str) -> None:
        """Pass a topic on. A listener that fails is logged: the commit it hears of has happened all the same."""
        for listener in self._listeners:
            try:
                listener(topic)
            except Exception:
                log.exception("a listener failed on %r", topic)

    def hear(self, engine: sa.Engine, everything: Callable[[], Iterable[str]]) -> None:
        """Listen on PostgreSQL until `close`; `everything` names all topics there are."""
        self._thread = threading.Thread(
            target=self._hear, args=(engine, everything), name="haina-changes", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """End the thread, if there is one."""
        self._ending.set()
        if self._thread is not None:
            self._thread.join(10)

    def _hear(self, engine: sa.Engine, everything: Callable[[], Iterable[str]]) -> None:
        while not self._ending.is_set():
            try:
                self._follow(engine, everything)
            except Exception as error:
                log.warning("no news from the database (%s); trying again", type(error).__name__)
                self._ending.wait(_RETRY)

    def _follow(self, engine: sa.Engine, everything: Callable[[], Iterable[str]]) -> None:
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql(f"LISTEN {CHANNEL}")
            driver = connection.connection.driver_connection
            assert driver is not None
            try:
                for topic in everything():
                    self.tell(topic)
                while not self._ending.is_set():
                    for notice in driver.notifies(timeout=_TICK):
                        self.tell(notice.payload)
            finally:
                # Never back to the pool: another borrower would hear, and drop, our news.
                connection.invalidate()
