"""The promise: the federation file under which this site first took part, kept in its folder, and held against every later word.

The file comes from the coordinator, and a coordinator that has changed its mind could ask for updates in the clear where it had promised sums. Who
sees whom for the first time believes, as with keys; from then on a change needs a person of this site.

    FEDERATION/promised.toml      the file, as it was
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from haina.errors import HainaError, TrustError
from haina.federation.schema import FederationFile, parse
from haina.wire.secret import write_secret

_PROMISED = "promised.toml"
#: What secrecy, noise and their price follow from: sections, and the keys of them that do; None for all.
_HELD: Mapping[str, tuple[str, ...] | None] = {
    **dict.fromkeys(("privacy", "model", "train", "strategy")),
    "serve": ("nodes", "quorum"),
}


def hold(folder: Path, text: str, federation: str) -> None:
    """Keep the federation file that a site takes part under; the first that promises privacy stays.

    Args:
        folder: of the site, for this federation; made where there is none.
        text: the file as the coordinator gives it now.
        federation: its name, for messages.

    Raises:
        TrustError: privacy was promised, and the file is another one by now; or what was kept cannot be read.
    """
    path = folder / _PROMISED
    now = parse(text, f"{federation}.toml")
    try:
        before = parse(path.read_text(encoding="utf-8"), str(path)) if path.exists() else None
    except (OSError, ValueError, HainaError) as error:
        raise TrustError(
            f"{path} does not hold the file under which this site takes part ({error})",
            remedy=f"Read what is promised now; if that is right, delete {path}, and join again",
        ) from error
    changed = [] if before is None else list(_changes(before, now))
    if before is not None and before.privacy is not None and changed:
        raise TrustError(
            f"federation {federation} promised something else when this site first took part: {', '.join(changed)}",
            allowed=f"the file as it was, which is kept in {path}",
            remedy=f"Ask the operator why. If people here agree to the change, delete {path}, and join again",
        )
    if before is None or changed:
        folder.mkdir(parents=True, exist_ok=True)
        write_secret(path, text.encode())


def _changes(before: FederationFile, now: FederationFile) -> Iterator[str]:
    if before.seed != now.seed:
        yield f"seed was {before.seed}, and is {now.seed}"
    for name, held in _HELD.items():
        old, new = getattr(before, name), getattr(now, name)
        if old is None or new is None:
            if old is not new:
                yield f"[{name}] is {'gone' if new is None else 'new'}"
            continue
        for key in held or type(old).model_fields:
            was, is_ = getattr(old, key), getattr(new, key)
            if was != is_:
                yield f"[{name}] {key} was {was!r:.80}, and is {is_!r:.80}"
