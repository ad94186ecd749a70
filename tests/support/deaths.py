import os
import warnings
from collections.abc import Callable, Iterator
from itertools import count

#: Everything by which a file comes to be, is moved, or goes.
OPERATIONS = ("open", "mkdir", "fsync", "link", "replace", "unlink")


def deaths(action: Callable[[], object]) -> Iterator[int]:
    """Run `action` in processes that die without any clean-up: before their first file operation, their second, and so on. One yield a death."""
    for fatal in count(1):
        with warnings.catch_warnings():
            # JAX, where another test has imported it, warns of every fork; this child touches files only.
            warnings.simplefilter("ignore")
            child = os.fork()
        if child == 0:
            _die_at(fatal)
            try:
                action()
            finally:
                os._exit(0)
        _, status = os.waitpid(child, 0)
        if os.waitstatus_to_exitcode(status) == 0:
            return
        yield fatal


def _die_at(fatal: int) -> None:
    done = count(1)

    def deadly(call: Callable[..., object]) -> Callable[..., object]:
        def counted(*args: object, **kwargs: object) -> object:
            if next(done) == fatal:
                os._exit(9)
            return call(*args, **kwargs)

        return counted

    for name in OPERATIONS:
        setattr(os, name, deadly(getattr(os, name)))
