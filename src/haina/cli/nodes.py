"""`haina nodes`: everybody with a certificate; `haina nodes revoke`: shut one out."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from rich.table import Table

from haina.cli.reach import Where
from haina.cli.talk import json_line, say, shown, when
from haina.monitoring.text import duration, plain
from haina.wire.messages import NodeInfo, Role

#: What can be shown of a node, by heading: text, from the node and the time.
COLUMNS: dict[str, Callable[[NodeInfo, float], str]] = {
    "node": lambda node, now: node.name,
    "role": lambda node, now: node.role.value,
    "state": lambda node, now: node.state,
    "federation": lambda node, now: node.federation or "",
    "group": lambda node, now: node.group or "",
    "examples": lambda node, now: f"{node.examples:,}" if node.role is Role.NODE else "",
    "doing": lambda node, now: plain(node.doing, 40),
    "last seen": lambda node, now: "" if node.last_seen is None else f"{_age(now - node.last_seen)} ago",
    "codec": lambda node, now: plain(node.codec, 20),
    "settings": lambda node, now: str(node.settings_version) if node.role is Role.NODE else "",
    "certificate until": lambda node, now: when(node.certificate_expires),
}


def nodes(where: Where, *, as_json: bool) -> None:
    """List nodes, viewers and operators."""
    with where.api() as api:
        found = api.nodes()
    if as_json:
        json_line([node.model_dump(mode="json") for node in found])
    else:
        shown(nodes_table(found, time.time()))


def revoke(where: Where, name: str, why: str, *, as_json: bool) -> None:
    """Shut somebody out for good."""
    with where.api() as api:
        node = api.revoke(name, why)
    if as_json:
        json_line(node.model_dump(mode="json"))
    else:
        say(f"{node.name} is shut out. A new invitation would let it in again: haina invite {node.name}")


def nodes_table(found: Sequence[NodeInfo], now: float, columns: Sequence[str] = tuple(COLUMNS)) -> Table:
    """Nodes as a table for people.

    Args:
        found: the nodes.
        now: seconds since 1970.
        columns: some of `COLUMNS`.
    """
    table = Table(header_style="bold")
    for name in columns:
        table.add_column(name, justify="right" if name == "examples" else "left", no_wrap=name == "node")
    for node in found:
        cells = [COLUMNS[name](node, now) for name in columns]
        table.add_row(*cells, style="dim" if node.state == "revoked" else None)
    return table


def _age(seconds: float) -> str:
    return duration(max(0.0, seconds))
