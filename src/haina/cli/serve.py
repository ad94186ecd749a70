"""`haina serve`: a coordinator, from its files to its end in order.

On a terminal the picture of `haina status` stays below the talk; elsewhere all talk is lines of the log. The first signal ends it in order, the
second at once, which is safe as well: whatever is acknowledged is on the disk.
"""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from haina.cli.talk import data, json_line, on_terminal
from haina.coordinator.contract import Caller
from haina.coordinator.serve import Running, serving
from haina.coordinator.static import StaticSettings, load
from haina.monitoring.text import plain
from haina.wire.messages import Role
from haina.wire.refusal import Refusal

if TYPE_CHECKING:
    from haina.cli.status import Look

log = logging.getLogger("haina")

#: Who looks at the picture.
_SELF = Caller("coordinator", Role.VIEWER, 0)


def serve(files: Sequence[Path], options: Mapping[str, Any], config: Path | None, *, as_json: bool) -> None:
    """Run a coordinator until it is told to end.

    Args:
        files: federation files.
        options: of the command line, by the names of static settings; None for what was not said.
        config: a file of static settings; None for `haina.toml`, if it is there.
        as_json: the line that says that it is ready is JSON.
    """
    static = load(options, config)
    _log(static)
    code = asyncio.run(_run(files, static, as_json=as_json))
    if code:
        raise SystemExit(code)


async def _run(files: Sequence[Path], static: StaticSettings, *, as_json: bool) -> int:
    """Serve; the exit code."""
    loop, running = asyncio.get_running_loop(), asyncio.current_task()
    assert running is not None
    told: list[int] = []

    def end(number: int) -> None:
        told.append(number)
        for each in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(each)
            # The next one ends the process where it stands.
            signal.signal(each, signal.SIG_DFL)
        running.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, end, number)
    try:
        async with serving(files, static) as coordinator:
            _announce(coordinator, static, as_json=as_json)
            await _stay(coordinator)
    except asyncio.CancelledError:
        if not told:
            raise
    log.info("ended; the same command goes on where it was")
    return 130 if told == [signal.SIGINT] else 0


def _announce(coordinator: Running, static: StaticSettings, *, as_json: bool) -> None:
    names = ", ".join(coordinator.core.stations)
    log.info("serving %s at %s and, for gRPC, at %s", names, coordinator.http, coordinator.grpc)
    log.info("everything is kept in %s", static.state)
    log.info("fingerprint of the authority: %s", coordinator.core.ground.authority.fingerprint)
    log.info("next, for each site: haina invite NAME%s", _elsewhere(static))
    if as_json:
        json_line({"http": coordinator.http, "grpc": coordinator.grpc, "state": str(static.state)})
    else:
        data(coordinator.http)


def _elsewhere(static: StaticSettings) -> str:
    return "" if static.state == StaticSettings.model_fields["state"].default else f" --state {static.state}"


async def _stay(coordinator: Running) -> None:
    """Until cancelled."""
    if not on_terminal():
        await asyncio.Event().wait()
    from rich.live import Live

    from haina.cli.status import EVERY, picture
    from haina.cli.talk import console

    with Live(console=console, auto_refresh=False) as live:
        while True:
            # A store that is away for a moment must not end what can wait for it.
            with suppress(Refusal):
                live.update(picture(await _look(coordinator)), refresh=True)
            await asyncio.sleep(EVERY)


async def _look(coordinator: Running) -> Look:
    from haina.cli.status import LAST, Look

    core = coordinator.core
    federations = await core.federations(_SELF)
    rounds = {federation.name: await core.rounds(_SELF, federation.name, LAST) for federation in federations}
    return Look(federations, rounds, await core.nodes(_SELF), time.time())


# ------------------------------------------------------------------------------------------------ logs


def _log(static: StaticSettings) -> None:
    handler = _Talk() if on_terminal() else logging.StreamHandler()
    handler.setFormatter(_Json() if static.log_format == "json" else _Words() if on_terminal() else _Text())
    # Of libraries, warnings only.
    logging.basicConfig(level="WARNING", handlers=[handler], force=True)
    logging.getLogger("haina").setLevel(static.log_level.upper())


class _Talk(logging.Handler):
    """Lines of a log among the talk, above the picture where there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        from haina.cli.talk import console

        console.print(self.format(record), markup=False, soft_wrap=True)


class _Words(logging.Formatter):
    """For somebody at a terminal: the time of day and what happened."""

    def format(self, record: logging.LogRecord) -> str:
        return f"{datetime.fromtimestamp(record.created):%H:%M:%S} {_message(record)}"


class _Text(logging.Formatter):
    """For people who read a log: when, how grave, who, what."""

    def format(self, record: logging.LogRecord) -> str:
        return f"{_time(record)} {record.levelname.lower()} {record.name}: {_message(record)}"


class _Json(logging.Formatter):
    """For machines: one JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            entry["error"] = self.formatException(record.exc_info)
        return json.dumps(entry, ensure_ascii=False)


def _message(record: logging.LogRecord) -> str:
    """One line, whatever others have written into it; a defect brings its traceback."""
    text = plain(record.getMessage(), 2000)
    return (
        text if record.exc_info is None else f"{text}\n{logging.Formatter().formatException(record.exc_info)}"
    )


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
