"""Peers: the key with which this site signs its part in secure sums, and the keys of the other sites.

A coordinator passes keys on between sites, and could put its own in their place; then it would read what it must not. So each site has a key for
ever, and each holds on to the keys of the others: those that people gave it (`haina join --peers FILE`), or else the first that it saw of each name.
Another key under a known name is refused until a person says that it is right.

    signing.pem     the key (Ed25519, RFC 8032); made when first needed
    peers.json      name -> public key, 64 hexadecimal digits, of those that were seen

The trap is the first sight: who is not told keys believes the first one. To compare them by telephone, or to hand them round in a file, closes it; a
file also keeps strangers out whom a coordinator might invent to be the rest of a sum.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from haina.errors import ConfigError, TrustError
from haina.privacy.secagg import Advert, SecAggError
from haina.wire.messages import NAME
from haina.wire.secret import read_secret, write_secret

_KEY, _PINS = "signing.pem", "peers.json"
_HEX = re.compile(r"[0-9a-f]{64}")


def signing_key(folder: Path) -> Ed25519PrivateKey:
    """The site's key; made where there is none. Of two processes at once both get the same.

    Raises:
        TrustError: it cannot be read, or everybody can.
    """
    path = folder / _KEY
    if not path.exists():
        fresh = Ed25519PrivateKey.generate()
        write_secret(path, fresh.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), keep=True)
    try:
        key = load_pem_private_key(read_secret(path), None)
    except (ValueError, TypeError) as error:
        raise TrustError(
            f"{path} is no key",
            remedy="Restore the file; with a new one the other sites must be told the new key",
        ) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise TrustError(f"{path} is a key of another kind", allowed="Ed25519")
    return key


def fingerprint(key: Ed25519PrivateKey) -> str:
    """The public key, in hexadecimal: what others compare."""
    return key.public_key().public_bytes_raw().hex()


def told(path: Path) -> dict[str, bytes]:
    """The keys in a file that people wrote: `NAME = "64 hexadecimal digits"`, a line each (TOML).

    Raises:
        ConfigError: it cannot be read, or holds something else.
    """
    try:
        said: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}", remedy="Check the path after --peers") from error
    for name, key in said.items():
        if not re.fullmatch(NAME, name) or not (isinstance(key, str) and _HEX.fullmatch(key)):
            raise ConfigError(
                f"{path} has a line for {name!r} that is no key",
                allowed='NAME = "64 hexadecimal digits", as the site saw at its start (haina join)',
            )
    return {name: bytes.fromhex(key) for name, key in said.items()}


@dataclass
class Peers:
    """The keys of other sites.

    Args:
        folder: of this site.
        listed: keys that people gave; nobody else is summed with then. None: whoever is seen first is believed.
    """

    folder: Path
    listed: Mapping[str, bytes] | None = None
    _seen: dict[str, bytes] = field(init=False)

    def __post_init__(self) -> None:
        self._seen = self._read()

    def known(self, name: str) -> bytes | None:
        """The key of a site; None for one that was never seen."""
        return self._seen.get(name) if self.listed is None else self.listed.get(name)

    def admit(self, adverts: Iterable[Advert], own: str) -> None:
        """Refuse company that was not asked for.

        Raises:
            SecAggError: "unknown": somebody is not in the list that people gave.
        """
        if self.listed is None:
            return
        for advert in adverts:
            if advert.name != own and advert.name not in self.listed:
                raise SecAggError(
                    "unknown",
                    f"{advert.name!r} is in the group, and not in the list of peers",
                    allowed="sites of the file that was given with --peers",
                    remedy="If it belongs to the federation, write its key into the file",
                )

    def meet(self, adverts: Iterable[Advert]) -> list[str]:
        """Hold on to the keys of those who were never seen, durably; their names. To be called when a group was found to be right."""
        fresh = {advert.name: advert.identity for advert in adverts if advert.name not in self._seen}
        if fresh:
            self._seen |= fresh
            pins = {name: self._seen[name].hex() for name in sorted(self._seen)}
            write_secret(self.folder / _PINS, json.dumps(pins, indent=0).encode())
        return sorted(fresh)

    def _read(self) -> dict[str, bytes]:
        path = self.folder / _PINS
        if not path.exists():
            return {}
        try:
            said = json.loads(path.read_text(encoding="utf-8"))
            pins = {str(name): bytes.fromhex(key) for name, key in said.items()}
            if any(len(key) != 32 for key in pins.values()):
                raise ValueError("a key of another length")
        except (OSError, ValueError, AttributeError, TypeError) as error:
            # To begin anew would believe whoever comes first.
            raise TrustError(
                f"{path} does not hold the keys of the other sites ({error})",
                remedy="Restore the file, or give their keys with --peers",
            ) from error
        return pins
