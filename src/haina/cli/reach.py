"""Reaching a coordinator: the three options by which every operator's command knows it, and the caller that comes of them.

On the coordinator's own machine its state folder says all: the address, and the credentials of the operator there. From elsewhere a folder of
credentials does (made by `haina join` with an invitation for an operator or a viewer).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from haina.errors import ConfigError, Unreachable

if TYPE_CHECKING:
    from haina.node.link.api import Api
    from haina.node.link.http import Http

    H = TypeVar("H", bound=Http)

#: Where a coordinator keeps what it must not lose; the same for `haina serve`.
STATE = Path("haina-state")


@dataclass(frozen=True)
class Where:
    """Which coordinator, and as whom.

    Args:
        state: the state folder of a coordinator on this machine.
        server: `https://HOST:PORT`; None for what the folder with the credentials says.
        credentials: a folder of credentials; None for those of the operator in the state folder.
    """

    state: Path
    server: str | None = None
    credentials: Path | None = None

    @contextmanager
    def api(self) -> Iterator[Api]:
        """An operator's calls."""
        from haina.node.link.api import Api

        with self.reached(Api) as api:
            yield api

    @contextmanager
    def reached(self, kind: type[H]) -> Iterator[H]:
        """A caller of some kind; its connections are closed afterwards.

        Raises:
            TrustError: the credentials cannot be read.
            Unreachable: there is no coordinator.
        """
        from haina.node.enrolment import Address
        from haina.wire.identity import Credentials
        from haina.wire.tls import client_context

        folder = self.credentials or self.state
        if not (folder / Address.FILE).exists():
            raise Unreachable(
                f"{folder} does not say where a coordinator is",
                remedy="Start one here (haina serve federation.toml), or say where it is: --state DIR, or --credentials DIR",
            )
        credentials = Credentials.load(self.credentials or self.state / "operator")
        server = self.server or Address.load(folder).http
        caller = kind(server, client_context(credentials.authority, credentials))
        try:
            yield caller
        finally:
            caller.close()


_OPTIONS = {
    "state": Annotated[
        Path, typer.Option(envvar="HAINA_STATE", help="State folder of a coordinator on this machine.")
    ],
    "server": Annotated[
        str | None, typer.Option(metavar="URL", help="A coordinator elsewhere: https://HOST:PORT.")
    ],
    "credentials": Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of credentials, made by haina join.")
    ],
}
_DEFAULTS: dict[str, Any] = {"state": STATE, "server": None, "credentials": None}


def reaching(command: Callable[..., None]) -> Callable[..., None]:
    """A command whose parameter `where` is said by the three options, so that no command has to list them."""
    signature = inspect.signature(command, eval_str=True)

    def run(**given: Any) -> None:
        said = {name: given.pop(name) for name in _OPTIONS}
        command(where=Where(**said), **given)

    parameters = [parameter for parameter in signature.parameters.values() if parameter.name != "where"]
    parameters += [
        inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, default=_DEFAULTS[name], annotation=annotation
        )
        for name, annotation in _OPTIONS.items()
    ]
    run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    run.__name__, run.__doc__ = command.__name__, command.__doc__
    return run


def the_federation(api: Api, name: str | None) -> str:
    """The federation that is meant: the one that is named, or the only one.

    Raises:
        ConfigError: there are several, or none.
    """
    if name is not None:
        return name
    names = [federation.name for federation in api.federations()]
    if len(names) != 1:
        raise ConfigError(
            f"there are {len(names)} federations, and none is named", allowed=", ".join(names) or "none"
        )
    return names[0]


def counted(words: Sequence[str], usage: str) -> tuple[str | None, int]:
    """`[FEDERATION] NUMBER` as they were typed: the name, if there is one, and the number.

    Raises:
        ConfigError: they are something else; with the usage.
    """
    *name, text = words
    if len(name) > 1 or not text.isascii() or not text.isdigit():
        raise ConfigError(f"{' '.join(words)!r} is not understood", allowed=usage)
    return (name[0] if name else None), int(text)
