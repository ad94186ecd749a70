"""The REST client, against a server on the loopback that gives answers recorded from FATE Flow 2.2.0. Those of 1.x follow its documented form, for no
server of 1.x installs here. `test_real_fate.py` runs against FATE itself."""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from haina.errors import ConfigError, RunError, Unreachable
from haina.interop.fate.flow import Flow, Status
from haina.interop.fate.rest import FlowError


@pytest.fixture
def server():
    """A server that gives the next of `server.answers` to each call, and keeps what was asked in `server.asked`."""

    class Handler(BaseHTTPRequestHandler):
        def answer(self):
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            made.asked.append((self.command, self.path, body))
            status, text = made.answers.pop(0)
            if status is None:
                time.sleep(text)
                return
            data = (text if isinstance(text, str) else json.dumps(text)).encode()
            self.send_response(status)
            if status == 302:
                self.send_header("Location", "/v2/elsewhere")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = answer  # noqa: N815

        def log_message(self, *args):
            pass

    made = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.daemon_threads = True
    made.answers, made.asked = [], []
    made.url = f"http://127.0.0.1:{made.server_port}"
    thread = threading.Thread(target=made.serve_forever, args=(0.01,))
    thread.start()
    yield made
    made.shutdown()
    thread.join()
    made.server_close()


def answers(server, *texts):
    server.answers[:] = [(200, text) for text in texts]


def ok(**more):
    return {"code": 0, "message": "success", **more}


def job(status, progress=0, role="guest", party="9999"):
    return {"status": status, "progress": progress, "role": role, "party_id": party}


def test_a_job_of_2_is_submitted_and_followed(server):
    answers(
        server,
        ok(job_id="2026", data={"model_id": "2026", "model_version": "0"}),
        ok(data=[job("waiting"), job("running", 50, "host")]),
        ok(data=[job("success", 100), job("running", 75, "host")]),
        ok(data=[job("success", 100), job("success", 100, "host")]),
    )
    flow, seen = Flow(server.url), []
    number = flow.submit({"kind": "fate"})
    flow.follow(number, seen.append, pause=0.01)
    assert number == "2026"
    assert seen == [Status("waiting"), Status("running", 75.0), Status("success", 100.0)]
    assert server.asked[0] == ("POST", "/v2/job/submit", {"dag_schema": {"kind": "fate"}})
    assert server.asked[1] == ("GET", "/v2/job/query?job_id=2026", None)


def test_a_job_that_fails_says_which_task_did_and_where_fate_keeps_the_cause(server):
    task = {"task_name": "homo_lr_0", "role": "host", "party_id": "9998", "status": "failed"}
    answers(server, ok(data=[job("failed", 50)]), ok(data=[task, {**task, "status": "success"}]))
    with pytest.raises(FlowError) as failed:
        Flow(server.url).follow("2026", pause=0.01)
    assert "ended as failed: homo_lr_0 at host 9998" in str(failed.value)
    assert "logs/2026/" in str(failed.value)


def test_a_job_of_1_is_submitted_followed_and_stopped(server):
    good = {"retcode": 0, "retmsg": "success"}
    answers(
        server,
        {**good, "jobId": "2021", "data": {}},
        {**good, "data": [{"f_status": "running", "f_progress": 33}]},
        {**good, "data": [{"f_status": "success", "f_progress": 100}]},
        good,
    )
    flow = Flow(server.url, version=1)
    number = flow.submit({"components": {}}, {"dsl_version": 2})
    flow.follow(number, pause=0.01)
    flow.stop(number)
    submitted = {"job_dsl": {"components": {}}, "job_runtime_conf": {"dsl_version": 2}}
    assert server.asked == [
        ("POST", "/v1/job/submit", submitted),
        ("POST", "/v1/job/query", {"job_id": "2021"}),
        ("POST", "/v1/job/query", {"job_id": "2021"}),
        ("POST", "/v1/job/stop", {"job_id": "2021"}),
    ]
    for call in (lambda: flow.upload({}), lambda: flow.model("2021", "homo_lr_0", "guest", 1)):
        with pytest.raises(ConfigError, match=r"2\.x only"):
            call()


@pytest.mark.parametrize(
    ("version", "answer", "code", "words"),
    [
        (2, {"code": 1001, "message": "No found job: job_id[nope]"}, 1001, "1001: No found job"),
        (
            2,
            {
                "code": 5001,
                "data": {"json": {"dag_schema": ["Missing data for required field."]}},
                "message": "Invalid request.",
            },
            5001,
            "Missing data for required field",
        ),
        (1, {"retcode": 100, "retmsg": "job submit failed"}, 100, "100: job submit failed"),
        (2, {"code": 0, "message": "success", "job_id": "../etc"}, 0, "no number of a job"),
        (2, {"code": 0, "message": "success"}, 0, "no number of a job"),
    ],
)
def test_what_fate_refuses_is_said_in_its_own_words(server, version, answer, code, words):
    answers(server, answer)
    with pytest.raises(FlowError) as refused:
        Flow(server.url, version=version).submit({})
    assert refused.value.code == code
    assert words in str(refused.value)


@pytest.mark.parametrize(
    "answer",
    [
        (200, "<html>hello</html>"),
        (200, "[1]"),
        (200, '{"code": true}'),
        (404, "not here"),
        (302, "{}"),
        (200, "[" * 200_000),
    ],
)
def test_a_stranger_is_told_from_fate(server, answer):
    server.answers[:] = [answer]
    with pytest.raises(Unreachable, match="does not answer like FATE Flow"):
        Flow(server.url).submit({})
    # A redirect was not followed, and nothing was asked again.
    assert len(server.asked) == 1


def test_a_server_that_hangs_or_is_gone_is_unreachable(server):
    server.answers[:] = [(None, 0.8)]
    began = time.monotonic()
    with pytest.raises(Unreachable, match="did not answer"):
        Flow(server.url, timeout=0.2).submit({})
    assert time.monotonic() - began < 0.7
    with pytest.raises(Unreachable, match="refused"):
        Flow("http://127.0.0.1:9").submit({})


def test_patience_ends_and_the_job_goes_on(server):
    server.answers[:] = [(200, ok(data=[job("running", 10)]))] * 100
    with pytest.raises(RunError, match="haina fate stop"):
        Flow(server.url).follow("2026", patience=0.1, pause=0.01)


def test_a_model_comes_home(server):
    model = {"output_model": {"param": {}}}
    answers(server, ok(data=model), ok())
    flow = Flow(server.url)
    assert flow.model("2026", "homo_lr_0", "guest", 9999) == model
    asked = "/v2/output/model/query?job_id=2026&task_name=homo_lr_0&role=guest&party_id=9999"
    assert server.asked[0] == ("GET", asked, None)
    with pytest.raises(FlowError, match="no model at host 9998"):
        flow.model("2026", "homo_lr_0", "host", 9998)


@pytest.mark.parametrize(
    "url",
    [
        "127.0.0.1:9380",
        "ftp://127.0.0.1",
        "http://",
        "http://127.0.0.1:9380/v2",
        "http://user:secret@127.0.0.1:9380",
        "http://127.0.0.1:port",
        "http://127.0.0.1:9380?a=1",
    ],
)
def test_what_is_no_address_is_refused(url):
    with pytest.raises(ConfigError, match="no address of FATE Flow"):
        Flow(url)


def test_plain_http_goes_to_this_machine_only():
    for here in ("http://localhost:9380", "http://127.3.2.1:9380", "http://[::1]:9380"):
        Flow(here)
    for there in ("http://fate.example.org:9380", "http://10.0.0.7:9380", "http://127.0.0.1.example.org"):
        with pytest.raises(ConfigError, match="--insecure"):
            Flow(there)
        Flow(there, insecure=True)
    Flow("https://fate.example.org")
