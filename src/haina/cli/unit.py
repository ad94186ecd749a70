"""A systemd unit for a node: the same command at every start of the machine, with absolute paths and no more rights than it needs.

The trap: what a framework compiles at run time needs memory that is written and then run, so `MemoryDenyWriteExecute` must stay out; and a GPU is a
device, so `PrivateDevices` must too.
"""

from __future__ import annotations

import getpass
import sys
from collections.abc import Sequence
from pathlib import Path

_UNIT = """\
[Unit]
Description=Haina node {name}
Wants=network-online.target
After=network-online.target

[Service]
Type=exec
User={user}
ExecStart={command}
Restart=always
RestartSec=10
RestartPreventExitStatus=2
TimeoutStopSec=60
Nice=5
UMask=0077
NoNewPrivileges=yes
CapabilityBoundingSet=
ProtectSystem=strict
ProtectHome=read-only
ReadWritePaths={folder}
PrivateTmp=yes
ProtectProc=invisible
ProtectClock=yes
ProtectHostname=yes
ProtectControlGroups=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
SystemCallArchitectures=native

[Install]
WantedBy=multi-user.target"""


def unit(
    where: Path,
    source: str,
    folder: Path,
    tasks: Path,
    door: str,
    *,
    periodic: bool,
    more: Sequence[str] = (),
) -> str:
    """The text of the unit.

    Args:
        where: the invitation, or the node's folder.
        source: where the rows are: a file, or another source.
        folder: of the node; made, because a unit can be shut out of all others only where its own is there.
        tasks: folder with the site's own `task.py`.
        door: of the coordinator.
        periodic: train at this site's own times.
        more: further words of the command.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    rows = str(Path(source).resolve()) if Path(source).is_file() else source
    words = [*_haina(), "join", str(where.resolve()), "--daemon", "--data", rows]
    words += ["--state", str(folder.resolve()), "--folder", str(tasks.resolve()), "--door", door]
    if periodic:
        words.append("--periodic")
    words += more
    name = folder.resolve().name.removeprefix("haina-node-")
    return _UNIT.format(
        name=name.replace("%", "%%"),
        user=getpass.getuser(),
        command=" ".join(map(_quoted, words)),
        folder=_quoted(str(folder.resolve())),
    )


def _haina() -> list[str]:
    """The command as it was started, or by its interpreter where it is not installed."""
    script = Path(sys.executable).with_name("haina")
    return [str(script)] if script.exists() else [sys.executable, "-c", "from haina.cli import main; main()"]


def _quoted(word: str) -> str:
    """One word of a unit: systemd itself replaces % and $ (systemd.service, systemd.syntax)."""
    word = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{word}"' if any(c in word for c in " \t;'\\") else word
