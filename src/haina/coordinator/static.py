"""Static settings: what a coordinator is told when it starts, and reads never again.

Where several say something, the first counts: command line, environment (`HAINA_LOG_LEVEL`), file (`haina.toml`). The database's address holds a
password, so it may lie in a file of its own (`HAINA_DATABASE_FILE`, as container platforms mount secrets).

The trap: importing pydantic-settings costs about 0.1 s. This module is imported by a coordinator that serves, and by nobody else.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BeforeValidator, ByteSize, Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from haina.coordinator.doors.limits import Limits
from haina.errors import ConfigError

#: The file that is read where none is named, if it is there.
FILE = Path("haina.toml")
_PREFIX = "HAINA_"


class Address(NamedTuple):
    """Where a door listens; port 0 lets the system choose."""

    host: str
    port: int


def _address(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([^\s:\[\]/]+)):(\d{1,5})", value.strip())
    if match is None or int(match[3]) > 65_535:
        raise ValueError("HOST:PORT, such as 0.0.0.0:8443 or [::]:8443")
    return Address(match[1] or match[2], int(match[3]))


def _names(value: Any) -> Any:
    return tuple(name.strip() for name in value.split(",")) if isinstance(value, str) else value


_Address = Annotated[Address, NoDecode, BeforeValidator(_address)]
_Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9:]([A-Za-z0-9.:-]{0,251}[A-Za-z0-9:])?$")]
_Public = Annotated[str, Field(pattern=r"^[A-Za-z0-9\[][A-Za-z0-9.:\[\]-]{0,251}:\d{1,5}$")]


class StaticSettings(BaseSettings):
    """What a coordinator is told when it starts.

    Args:
        state: folder of everything that must survive a restart.
        http: where the HTTP door listens.
        grpc: where the gRPC door listens.
        names: host names and addresses by which others reach this coordinator, for its certificate; invitations say the first.
        public_http: HOST:PORT of the HTTP door as others reach it, where that is a balancer's; None for the first name and the door's own port.
        public_grpc: likewise of the gRPC door.
        database: `postgresql://USER:PASSWORD@HOST/NAME`, needed for replicas; None for SQLite in the state folder.
        database_file: a file with that address.
        authority: folder of the certificate authority; None for one in the state folder.
        log_level: the least that is logged.
        log_format: for people or for machines.
        connections: open at once at one door.
        uploads: on their way at once.
        upload_bytes: most bytes of one update.
        spool_bytes: most bytes of all updates that wait for their round.
        cache_bytes: most bytes of models that are copied from a shared database.
    """

    model_config = SettingsConfigDict(env_prefix=_PREFIX, extra="forbid", frozen=True, env_ignore_empty=True)

    state: Path = Path("haina-state")
    http: _Address = Address("127.0.0.1", 8443)
    grpc: _Address = Address("127.0.0.1", 8444)
    names: Annotated[tuple[_Name, ...], NoDecode, BeforeValidator(_names)] = Field(
        ("localhost",), min_length=1, max_length=100
    )
    public_http: _Public | None = None
    public_grpc: _Public | None = None
    database: str | None = Field(None, repr=False)
    database_file: Path | None = None
    authority: Path | None = None
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"],
        BeforeValidator(lambda value: value.lower() if isinstance(value, str) else value),
    ] = "info"
    log_format: Literal["text", "json"] = "text"
    connections: int = Field(4096, ge=1, le=1_000_000)
    uploads: int = Field(256, ge=1, le=100_000)
    upload_bytes: Annotated[ByteSize, Field(ge=1)] = ByteSize(16 << 30)
    spool_bytes: Annotated[ByteSize, Field(ge=1)] = ByteSize(64 << 30)
    cache_bytes: Annotated[ByteSize, Field(ge=1)] = ByteSize(16 << 30)

    @model_validator(mode="before")
    @classmethod
    def _read_secret(cls, said: dict[str, Any]) -> dict[str, Any]:
        file = said.get("database_file")
        if file is None:
            return said
        if said.get("database") is not None:
            raise ValueError("database and database_file are both given: one address is needed")
        try:
            secret = Path(file).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"database_file {file} cannot be read") from error
        if not secret:
            raise ValueError(f"database_file {file} is empty")
        return {**said, "database": secret}

    @property
    def public_name(self) -> str:
        """How others call this coordinator."""
        return self.names[0]

    @property
    def limits(self) -> Limits:
        """Limits of the doors; what is under way at once must fit the spool."""
        return Limits(connections=self.connections, uploads=self.uploads, upload_bytes=self.spool_bytes)


def load(options: Mapping[str, Any], file: Path | None = None) -> StaticSettings:
    """Read the static settings.

    Args:
        options: what the command line says, by name; None for what it does not say.
        file: a TOML file with the settings; None for `FILE`, which need not be there.

    Raises:
        ConfigError: a file that is not there or not TOML, a key that does not exist, or a value that does not fit; names where it was said.
    """
    for name in os.environ:
        key = name.removeprefix(_PREFIX).lower()
        near = difflib.get_close_matches(key, StaticSettings.model_fields, n=1, cutoff=0.8)
        if name.startswith(_PREFIX) and near and key not in StaticSettings.model_fields:
            raise ConfigError(
                f"the environment says {name}, which is no setting",
                remedy=f"Did you mean {_PREFIX}{near[0].upper()}?",
            )
    path = file or FILE
    written = _written(path, needed=file is not None)
    chosen = {key: value for key, value in options.items() if value is not None}
    # Whatever is passed outranks the environment, so of the file only what the environment does not say.
    below = {key: value for key, value in written.items() if not os.environ.get(_PREFIX + key.upper())}
    try:
        return StaticSettings(**{**below, **chosen})
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        key = str(fault["loc"][0]) if fault["loc"] else ""
        raise _spoken(key, fault, chosen, path) from None


def _written(path: Path, *, needed: bool) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        if not needed:
            return {}
        raise ConfigError(f"{path} is not there", remedy="Check the path") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError(f"{path} is not TOML: {error}", remedy="Mend the line it names") from error


def _spoken(key: str, fault: Mapping[str, Any], chosen: Mapping[str, Any], path: Path) -> ConfigError:
    """What pydantic found, with the place where it was said; the address of a database is never repeated."""
    words = fault["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    if not key:
        return ConfigError(words)
    if fault["type"] == "extra_forbidden":
        near = difflib.get_close_matches(key, StaticSettings.model_fields, n=1)
        return ConfigError(
            f"{path}: there is no setting {key!r}",
            allowed=", ".join(StaticSettings.model_fields),
            remedy=f"Did you mean {near[0]}?" if near else "",
        )
    variable = _PREFIX + key.upper()
    option = "--" + key.replace("_", "-")
    place = option if key in chosen else variable if os.environ.get(variable) else f"{path}: {key}"
    value = "cannot be used" if key == "database" else f"is {fault['input']!r}"
    return ConfigError(f"{place} {value}", allowed=words)
