"""The component of the Haina task, in FATE's own Python, asks services that answer well, badly, late and not at all."""

import json
import math
import os
import struct
import subprocess
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from fate import ROOT, require_fate

HERE = Path(__file__).parent
FIT = [0.1, -2.5, 1e-17]


def message(*numbers, words=b'{"metrics":["deviance"]}'):
    return struct.pack("<ii", len(words), len(numbers)) + words + struct.pack(f"<{len(numbers)}d", *numbers)


ANSWERS = {
    "good": message(*FIT, 2.0, 1.5),
    "json": json.dumps({"coef": FIT, "n": [2]}),
    "text": '{"coef": [1, 2, 3]}',
    "cut": message(*FIT, 2.0)[:-1],
    "short": message(1.0, 2.0),
    "infinite": message(0.1, math.inf, 1.0, 2.0),
    "json-words": "not json",
    "json-gap": '{"coef": [0.1, null, 1.0]}',
    "json-short": '{"coef": [0.1]}',
    "long": "x" * (5 << 20),
    "500": "",
    "302": "",
    "slow": "",
    "drip": "",
}


@pytest.fixture
def service():
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            made.asked.append((self.path, body))
            name = self.path.strip("/")
            if name in ("slow", "drip"):
                self.send_response(200)
                self.end_headers()
                for _ in range(20):
                    time.sleep(0.1)
                    if name == "drip":
                        self.wfile.write(b" ")
                return
            self.send_response(int(name) if name.isdigit() else 200)
            if name == "302":
                self.send_header("Location", "/good")
            self.end_headers()
            answer = ANSWERS[name]
            self.wfile.write(answer if isinstance(answer, bytes) else answer.encode())

        def handle(self):
            # Who asked has gone, as was to be shown.
            with suppress(OSError):
                super().handle()

        def log_message(self, *args):
            pass

    made = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.daemon_threads = True
    made.asked = []
    thread = threading.Thread(target=made.serve_forever, args=(0.01,))
    thread.start()
    yield made
    made.shutdown()
    thread.join()
    made.server_close()


def ask(urls, **environment):
    python = require_fate() / "venv" / "bin" / "python"
    done = subprocess.run(
        [python, HERE / "ask_r.py", ROOT / "examples" / "fate", *urls],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, **environment},
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.fate
@pytest.mark.slow
def test_a_service_is_asked_within_limits(service):
    base = f"http://localhost:{service.server_port}"
    told = dict(zip(ANSWERS, ask([f"{base}/{name}" for name in ANSWERS]), strict=True))
    assert told.pop("good") == told.pop("json") == FIT
    asked = dict(service.asked)
    header, count = struct.unpack_from("<ii", asked["/good"])
    assert json.loads(asked["/good"][8 : 8 + header])["names"] == ["(Intercept)", "x0", "x1"]
    # Coefficients of zero, x column by column, y.
    assert struct.unpack_from(f"<{count}d", asked["/good"], 8 + header) == (0, 0, 0, 0.1, 0.3, 2, -1, 1, 0)
    rows = [{"x0": 0.1, "x1": 2.0, "y": 1.0}, {"x0": 0.3, "x1": -1.0, "y": 0.0}]
    assert json.loads(asked["/json"])["data"] == rows
    # The redirect was not followed: nobody asked /good again.
    assert [path for path, _ in service.asked].count("/good") == 1
    words = {
        "text": "Does it speak JSON",
        "cut": "no message",
        "short": "2 coefficients, and 3",
        "infinite": "no finite number",
        "json-words": "without coef",
        "json-gap": "without coef",
        "json-short": "1 coefficients, and 3",
        "long": "more than 4194304 bytes",
        "500": "HTTP status 500",
        "302": "HTTP status 302",
        "slow": "within 0.5 seconds",
        "drip": "within 0.5 seconds",
    }
    assert [name for name, said in words.items() if said not in told[name]] == [], told


@pytest.mark.fate
@pytest.mark.slow
def test_rows_leave_the_machine_only_where_the_owner_said_so(service):
    here = f"http://127.0.0.1:{service.server_port}/good"
    elsewhere = [
        "http://10.1.2.3:8000/good",
        "http://r.invalid/good",
        "ftp://localhost/good",
        "http://a@localhost/good",
    ]
    told = ask([*elsewhere, "http://localhost:9/good", here])
    assert "services on its own machine" in told[0]
    assert "HAINA_R_SERVICES" in told[1]
    assert "no address" in told[2]
    assert "no address" in told[3]
    assert "Is the R service running" in told[4]
    assert told[5] == FIT
    # Where some are listed, those and no others.
    listed = f"https://r.example.org:8443 http://127.0.0.1:{service.server_port}"
    told = ask([here, here.replace("127.0.0.1", "localhost")], HAINA_R_SERVICES=listed)
    assert told[0] == FIT
    assert "r.example.org:8443 or" in told[1]
