"""The `rservice` learner: against the plumber example, and against servers that do everything wrong."""

import contextlib
import datetime
import http.server
import ipaddress
import json
import os
import signal
import socket
import ssl
import struct
import subprocess
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from rlang import environment, require_r

from haina.errors import LearnerError
from haina.learners.learner import Training, Work
from haina.learners.r.coefficients import Coefficients
from haina.learners.r.home import Columns
from haina.learners.r.learner import RLearner
from haina.learners.r.post import ALLOWED
from haina.learners.r.service import RService
from haina.shards import Shards
from haina.update import Failure, Update

EXAMPLE = Path(__file__).parents[3] / "examples/rservice"
MODEL = Coefficients(("(Intercept)", "age", "stay"))
COLUMNS = Columns(("age", "stay"), ("no", "yes"))
RNG = np.random.default_rng(3)
X = RNG.normal(size=(300, 2))
Y = (RNG.random(300) < 1 / (1 + np.exp(-X[:, 0]))).astype(np.int64)


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as found:
        return found.getsockname()[1]


def train(url, model=MODEL, columns=COLUMNS, **options):
    learner = RLearner("rservice", RService(url, model, columns, **options), model, 2)
    shards = Shards(("A",), X, Y, np.array([[0, 300]]))
    (result,) = learner.train(Work(np.zeros(model.length), 1, shards, Training(), 0.1))
    return result


def reason(url, **options):
    result = train(url, **options)
    assert isinstance(result, Failure), result
    return result.reason


@contextlib.contextmanager
def rscript(script, port, folder):
    """A running R script of the example, once it listens."""
    call = [require_r("plumber", "jsonlite"), "--vanilla", str(EXAMPLE / script), str(port)]
    with subprocess.Popen(call, cwd=folder, env=environment()) as process:
        try:
            deadline = time.monotonic() + 60
            while True:
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                    break
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.05)
            yield process
        finally:
            process.kill()


@pytest.fixture(scope="module")
def plumber(tmp_path_factory):
    """The port of the example's service, and the folder it runs in."""
    folder, port = tmp_path_factory.mktemp("plumber"), free_port()
    with rscript("service.R", port, folder):
        yield port, folder


def newton(x, y):
    """`glm.fit` of a logistic regression, in Python."""
    design, beta = np.column_stack([np.ones(len(x)), x]), np.zeros(3)
    for _ in range(25):
        p = 1 / (1 + np.exp(-(design @ beta)))
        beta = beta + np.linalg.solve((design.T * (p * (1 - p))) @ design, design.T @ (y - p))
    return beta


def test_the_example_of_the_request_answers(plumber):
    result = train(f"http://localhost:{plumber[0]}/run_logistic_regression", timeout=300)
    assert isinstance(result, Update), result
    np.testing.assert_allclose(result.vector, newton(X, Y), atol=1e-8)
    assert (result.report.examples, result.report.extra.keys()) == (300, {"deviance"})


def test_the_json_of_the_article_answers_too_with_fewer_digits(plumber):
    binary = train(f"http://localhost:{plumber[0]}/run_logistic_regression")
    slow = train(f"http://localhost:{plumber[0]}/json/run_logistic_regression", format="json")
    np.testing.assert_allclose(slow.vector, binary.vector, atol=1e-13)


def test_what_r_refuses_and_what_there_is_not_are_http_errors(plumber):
    port = plumber[0]
    assert reason(f"http://localhost:{port}/nowhere") == "its R service answered HTTP 404"
    # A frame where JSON is expected: R stops.
    assert (
        reason(f"http://localhost:{port}/json/run_logistic_regression") == "its R service answered HTTP 500"
    )


def health(port):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


@pytest.mark.slow
def test_a_second_process_says_whether_the_service_computes(tmp_path):
    """plumber answers nobody while it computes; the liveness check does, also when the service is gone."""
    service, alive = free_port(), free_port()
    text = (EXAMPLE / "service.R").read_text().replace("  fit <- glm.fit", "  Sys.sleep(3)\n  fit <- glm.fit")
    (tmp_path / "slow.R").write_text(text)
    with rscript(tmp_path / "slow.R", service, tmp_path) as process, rscript("alive.R", alive, tmp_path):
        assert health(alive)[1]["state"] == "idle"
        url = f"http://localhost:{service}/run_logistic_regression"
        assert reason(url, timeout=1.0) == "its R service did not answer within 1 s"
        status, said = health(alive)
        assert (status, said["state"]) == (200, "computing")
        assert 0.5 < said["seconds"] < 3
        process.send_signal(signal.SIGKILL)
        process.wait(10)
        assert health(alive) == (503, {"state": "not running"})
        assert reason(url) == "its R service is not running: nobody listens at its address"


def frame_of(numbers, header=b'{"metrics": []}'):
    return struct.pack("<ii", len(header), len(numbers)) + header + np.asarray(numbers, "<f8").tobytes()


GOOD = frame_of([1.0, 2.0, 3.0, 300.0])


@pytest.fixture
def server():
    """A server that answers as it is told."""
    started = []

    def start(answer, context=None):
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                self.server.seen.append(
                    (self.path, dict(self.headers), self.rfile.read(int(self.headers["Content-Length"])))
                )
                with contextlib.suppress(OSError):
                    answer(self)

            def log_message(self, *args):
                pass

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request, address):
                pass

        one = Server(("127.0.0.1", 0), Handler)
        one.seen = []
        if context is not None:
            one.socket = context.wrap_socket(one.socket, server_side=True)
        started.append(one)
        threading.Thread(target=one.serve_forever, daemon=True).start()
        return one

    yield start
    for one in started:
        one.shutdown()
        one.server_close()


def say(body, status=200, length=None, **headers):
    def answer(handler):
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(body) if length is None else length))
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body)

    return answer


def test_what_is_sent(server):
    """A frame: params, x column by column, y; with names in its header."""
    one = server(say(GOOD))
    result = train(f"http://127.0.0.1:{one.server_port}/fit?site=a")
    np.testing.assert_array_equal(result.vector, [1.0, 2.0, 3.0])
    ((path, headers, body),) = one.seen
    assert (path, headers["Content-Type"]) == ("/fit?site=a", "application/octet-stream")
    length, count = struct.unpack("<ii", body[:8])
    header, numbers = json.loads(body[8 : 8 + length]), np.frombuffer(body[8 + length :], "<f8")
    assert count == len(numbers) == 3 + 600 + 300
    assert (header["rows"], header["columns"], header["names"]) == (300, 2, ["(Intercept)", "age", "stay"])
    np.testing.assert_array_equal(numbers[3:603].reshape(2, 300).T, X)
    np.testing.assert_array_equal(numbers[603:], Y)


def slow(handler):
    time.sleep(3)


def dripping(handler):
    handler.send_response(200)
    handler.end_headers()
    for _ in range(30):
        handler.wfile.write(b"x")
        handler.wfile.flush()
        time.sleep(0.1)


def cut(handler):
    handler.connection.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (slow, "its R service did not answer within 1 s"),
        (dripping, "its R service did not answer within 1 s"),
        (cut, "its R service closed the connection (RemoteDisconnected)"),
        (say(b"Zhang Wei", 500), "its R service answered HTTP 500"),
        (
            say(b"", 302, Location="http://127.0.0.1:1/"),
            "its R service answered HTTP 302, and redirects are not followed",
        ),
        (say(b"x" * (1 << 21)), "its R service answered more than"),
        (say(GOOD[:-4]), "its R service answered what is no message: R's answer ends in the middle"),
        (say(GOOD, length=len(GOOD) + 9), "its R service closed the connection in the middle of its answer"),
        (say(GOOD + b"more"), "its R service answered more than one message"),
        (say(b"{}"), "its R service answered what is no message"),
        (say(struct.pack("<ii", 1 << 30, 4) + b"{}"), "R announced 1073741824 bytes of header"),
        (say(struct.pack("<ii", 2, -1) + b"{}"), "R announced 2 bytes of header and -1 numbers"),
        (say(frame_of([1.0, 2.0, 3.0, 1.0], b"[]")), "the header of R's answer is not a table"),
        (say(frame_of([1.0, 2.0])), "its R service answered 2 numbers, and 4 were to come"),
        (
            say(frame_of([1.0, np.nan, 3.0, 9.0])),
            "its R code returned params[2] (age) that is not a finite number",
        ),
        (say(frame_of([1.0, 2.0, 3.0, -9.0])), "its R code returned an n that is no count of examples"),
    ],
)
def test_what_goes_wrong_is_said_in_words_of_its_own(answer, words, server):
    one = server(answer)
    begun = time.monotonic()
    said = reason(f"http://localhost:{one.server_port}/", timeout=1.0)
    assert words in said
    assert "Zhang" not in said
    assert time.monotonic() - begun < 2.5
    assert len(one.seen) == 1


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"<html>", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b"[1]", 'JSON without "coef"'),
        (b'{"coef": [1, "2", 3]}', 'JSON without "coef"'),
        (b'{"coef": [1, NaN, 3]}', 'JSON without "coef"'),
        (b'{"coef": [1, 2]}', "returned 2 params, and the model has 3"),
        (
            b'{"coef": [1, 2, 3], "names": ["age", "stay", "(Intercept)"]}',
            "coefficients of other names: age, stay",
        ),
        (b'{"coef": [1, 2, 3], "metrics": {"auc": "high"}}', "metrics that are not numbers"),
    ],
)
def test_json_that_is_no_answer(body, words, server):
    one = server(say(body))
    assert words in reason(f"http://localhost:{one.server_port}/", format="json")


def test_one_call_at_a_time(server):
    """R computes one thing at a time, so a second call waits here and not in the service's queue."""
    inside, most = [], []

    def answer(handler):
        inside.append(1)
        most.append(len(inside))
        time.sleep(0.1)
        inside.pop()
        say(GOOD)(handler)

    service = RService(f"http://localhost:{server(answer).server_port}/", MODEL, COLUMNS)
    threads = [threading.Thread(target=service.train, args=(np.zeros(3), X, Y, {})) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert most == [1, 1, 1, 1]


@pytest.mark.parametrize(
    "url",
    [
        "http://r.example.org/x",
        "http://192.0.2.7:8000/x",
        "http://169.254.169.254/latest/meta-data",
        "http://0.0.0.0:8000/",
        "https://[2001:db8::1]/",
    ],
)
def test_a_file_from_the_wire_cannot_send_rows_elsewhere(url, monkeypatch):
    monkeypatch.setattr(socket, "create_connection", lambda *args: pytest.fail("it tried to connect"))
    with pytest.raises(LearnerError, match=f"owner does not allow it.*{ALLOWED}"):
        train(url)


def test_what_the_owner_allows_is_all_that_is_allowed(server, monkeypatch):
    one, other = server(say(GOOD)), server(say(GOOD))
    monkeypatch.setenv(ALLOWED, f"https://r.example.org:8443 http://127.0.0.1:{one.server_port}")
    assert isinstance(train(f"http://127.0.0.1:{one.server_port}/any/path"), Update)
    for url in (
        f"http://127.0.0.1:{other.server_port}/",
        f"https://127.0.0.1:{one.server_port}/",
        "http://r.example.org:8443/",
    ):
        with pytest.raises(LearnerError, match="owner does not allow it"):
            train(url)
    monkeypatch.setenv(ALLOWED, "http://r.invalid:8000")
    assert reason("http://r.invalid:8000/x") == "its R service has a host that is not known"


def test_no_proxy_is_asked(server, monkeypatch):
    one, proxy = server(say(GOOD)), server(say(b"", 403))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.server_port}")
    assert isinstance(train(f"http://localhost:{one.server_port}/"), Update)
    assert not proxy.seen


@pytest.mark.parametrize(
    "url",
    [
        "localhost:8000",
        "ftp://localhost/x",
        "http://",
        "http://u:p@localhost/",
        "http://localhost:99999/",
        "http://local host/",
        "file:///etc/passwd",
        "http://localhost/\r\nX: y",
    ],
)
def test_what_is_no_address_is_refused_when_the_file_is_read(url):
    with pytest.raises(LearnerError, match="is no address of a service"):
        RService(url, MODEL, COLUMNS)


def certificate(folder):
    key, name = (
        ec.generate_private_key(ec.SECP256R1()),
        x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "R")]),
    )
    now = datetime.datetime.now(datetime.UTC)
    places = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    made = x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + datetime.timedelta(1))
    made = made.add_extension(places, critical=False).add_extension(
        x509.BasicConstraints(ca=True, path_length=0), critical=True
    )
    usage = x509.KeyUsage(True, False, False, False, False, True, True, False, False)
    made = made.add_extension(usage, critical=True).add_extension(
        x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False
    )
    pem, path = serialization.Encoding.PEM, folder / "r.pem"
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path.write_bytes(made.sign(key, hashes.SHA256()).public_bytes(pem) + secret)
    return path


def test_https_and_only_with_a_certificate_that_is_trusted(server, tmp_path, monkeypatch):
    path = certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    one = server(say(GOOD), context)
    url = f"https://127.0.0.1:{one.server_port}/"
    assert reason(url) == "its R service has a certificate that this machine does not trust"
    monkeypatch.setenv("SSL_CERT_FILE", os.fspath(path))
    assert isinstance(train(url), Update)
    stuck = server(dripping, context)
    assert (
        reason(f"https://127.0.0.1:{stuck.server_port}/", timeout=1.0)
        == "its R service did not answer within 1 s"
    )
