"""RProcess: one R process of ours and the calls to it, each with a limit of time.

It is started when first called, and anew when it died or was ended because it did not answer. Calls go over file descriptors 3 and 4, so that what
a script prints harms nothing: standard output and error of R are this process's standard error.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping
from pathlib import Path
from time import monotonic
from typing import Any

from haina.artifact import Array
from haina.errors import LearnerError
from haina.learners.r.answer import RError
from haina.learners.r.frames import FrameError, frame, read_frame
from haina.learners.r.running import Running

#: A call that ends its process so often is given up.
TRIES = 2
#: Seconds to start R, attach a script's packages (glmnet: 1 s, on a busy machine 8 s) and take rows.
START = 120.0
#: Seconds for a process that closed its pipes to say its exit status.
_LAST = 0.5
#: How worker.R ends where it finds no jsonlite.
_NO_JSONLITE = 69


class REnded(RError):  # noqa: N818 -- it is said of the process
    """The R process ended in the middle of a call."""


class RSlow(RError):  # noqa: N818 -- it is said of the process
    """The R process did not answer in time and was ended."""


class RSaid(RError):  # noqa: N818 -- it is what R said
    """R met an error, and lives.

    Args:
        call: what was asked.
        words: of the error; for this machine only, unless the script's own code said them.
        own: the script itself called `stop()`, or what it returned was refused.
        place: the R function that the error is from.
    """

    def __init__(self, call: str, words: str, *, own: bool, place: str) -> None:
        self.words = words
        where = f" in {place}()" if re.fullmatch(r"[\w.:]+", place) else ""
        shown = f": {words[:500]}" if own else f"{where}; what R said is in the log of its own machine"
        super().__init__(f"its R script stopped ({call}){shown}")


class RProcess:
    """One process; calls come one at a time, from any thread.

    Args:
        folder: where R starts, so that a script finds the files beside it.
        begin: the first message that each process gets.
    """

    def __init__(self, folder: Path, begin: Mapping[str, Any]) -> None:
        self._folder, self._begin = folder, begin
        #: Held over calls that belong together.
        self.lock = threading.RLock()
        self._live: Running | None = None
        self.offers: frozenset[str] = frozenset()
        #: Rows that the process holds, by their hash, least recently used first, and their bytes.
        self.held: dict[str, int] = {}

    @property
    def pid(self) -> int | None:
        """The process, if there is one."""
        return None if self._live is None else self._live.process.pid

    def start(self) -> None:
        """Start the process and read the script, if that is not done.

        Raises:
            LearnerError: there is no Rscript, R ends at once, or the script cannot be read; with R's words, for this machine.
        """
        with self.lock:
            if self._live is not None:
                return
            try:
                self._live = Running(self._folder)
                answer, _ = self.exchange({"call": "begin", **self._begin}, (), 0, START)
            except RError as error:
                self.close()
                words = error.words if isinstance(error, RSaid) else error.reason
                if f"exit status {_NO_JSONLITE})" in words:
                    raise LearnerError(
                        "the R package jsonlite is not installed",
                        remedy='Run in R: install.packages("jsonlite")',
                    ) from error
                raise LearnerError(
                    f"R cannot begin with {self._begin.get('script', 'its script')}: {words}",
                    remedy="Try it with Rscript on this machine; what R printed is above",
                ) from error
            self.offers = frozenset(answer.get("offers", ()))

    def exchange(
        self, header: Mapping[str, Any], arrays: tuple[Array, ...], most: int, limit: float
    ) -> tuple[dict[str, Any], Array]:
        """Send a frame to the running process and read its answer.

        Args:
            header: `call` and its words.
            arrays: numbers.
            most: numbers that the answer may have.
            limit: seconds.

        Raises:
            RSaid: R met an error.
            REnded, RSlow: the process is gone.
            RError: what came is no answer; the process was ended.
        """
        with self.lock:
            live = self._live
            assert live is not None
            pieces, deadline = frame(header, *arrays), monotonic() + limit
            try:
                live.write(pieces, deadline)
                answer, numbers = read_frame(live.reader(deadline), most)
            except TimeoutError:
                self.close()
                raise RSlow(f"its R script did not answer within {limit:g} s and was ended") from None
            except (EOFError, OSError):
                raise REnded(f"its R process ended ({self.close(_LAST)})") from None
            except FrameError as error:
                self.close()
                raise RError(f"its R process answered what is no message ({error.what})") from error
            except BaseException:
                # Interrupted in the middle of an answer: the next call must not read the rest of this one.
                self.close()
                raise
            if "error" in answer:
                raise RSaid(
                    str(header["call"]),
                    str(answer["error"]),
                    own=answer.get("own") is True,
                    place=str(answer.get("place", "")),
                )
            return answer, numbers

    def close(self, patience: float = 0.0) -> str:
        """End the process, and say how it ended; one that is just ending by itself is left so many seconds. The next `start` begins a new one."""
        with self.lock:
            live, self._live = self._live, None
            self.held.clear()
            return "it was not started" if live is None else live.end(patience)
