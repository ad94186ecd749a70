"""FATE for the tests: its environments, and a FATE Flow server of one's own on the loopback.

`tests/interop/fate_env.sh` makes the environments. Where there are none the test is skipped and says so; with `HAINA_REQUIRE_FATE=1` it fails.

The trap: FATE Flow writes its folders into its own code, so there is one home for an environment, and one server at a time. It is emptied before a
start.
"""

import fcntl
import os
import re
import shutil
import socket
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from processes import wait

ROOT = Path(__file__).parents[2]
REQUIRE = "HAINA_REQUIRE_FATE"


def require_fate() -> Path:
    """The folder of FATE's environments; else the test is skipped, or fails where FATE is required."""
    folder = Path(os.environ.get("HAINA_FATE", ROOT / ".cache" / "fate"))
    if (folder / ".complete").is_file():
        return folder
    reason = f"FATE is needed here, and {folder} holds none (make it: tests/interop/fate_env.sh)"
    if os.environ.get(REQUIRE) == "1":
        pytest.fail(reason)
    pytest.skip(reason)


def judged(environment: str, script: Path, *files: Path) -> subprocess.CompletedProcess[str]:
    """What a script says of some files in one of FATE's environments: `venv` (2.2.0) or `venv1` (the client of 1.11.3)."""
    python = require_fate() / environment / "bin" / "python"
    call = [python, script, *files]
    return subprocess.run(call, capture_output=True, text=True, timeout=300, check=False)


@contextmanager
def fate_flow(environment: dict[str, str] | None = None) -> Iterator[str]:
    """A server; its URL. It and all that it started are ended by their own ids."""
    folder = require_fate()
    home, python = folder / "home", folder / "venv" / "bin" / "python"
    (code,) = folder.glob("venv/lib/python3*/site-packages/fate_flow")
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for left in home.iterdir():
            if left.name not in ("conf", "upload"):
                shutil.rmtree(left) if left.is_dir() else left.unlink()
        (home / "logs").mkdir()
        http, grpc = _free(), _free()
        settings = home / "conf" / "service_conf.yaml"
        text = settings.read_text()
        text = re.sub(r"^( +grpc_port:) \d+", rf"\1 {grpc}", text, count=1, flags=re.MULTILINE)
        settings.write_text(re.sub(r"^( +http_port:) \d+", rf"\1 {http}", text, count=1, flags=re.MULTILINE))
        url = f"http://127.0.0.1:{http}"
        with (home / "logs" / "console.log").open("w") as log:
            server = subprocess.Popen(
                ["nice", python, code / "fate_flow_server.py"],
                cwd=home,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**os.environ, **(environment or {})},
            )
        try:
            wait(lambda: server.poll() is not None or _answers(url), "FATE Flow answers", 180, 0.5)
            assert server.poll() is None, (home / "logs" / "console.log").read_text()[-2000:]
            yield url
        finally:
            ours = psutil.Process(server.pid).children(recursive=True) if server.poll() is None else []
            server.terminate()
            for process in ours:
                if process.is_running():
                    process.kill()
            try:
                server.wait(20)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait(20)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/v2/server/fateflow", timeout=5) as response:
            return response.status == 200
    except OSError:
        return False


def _free() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
