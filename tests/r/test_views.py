"""R's views of a federation, against real ones: pictures in ggplot2, and the dashboard in a real browser.

The federation: a coordinator with test rows, two nodes that learn, and one that reports in each round that it cannot train, with a reason that tries
to be markup.
"""

import http.server
import json
import re
import shutil
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from browser import as_phone, browser, require_browser
from command import finished, spawn
from rsite import evaluate, needs_r
from served import Served

from haina.monitoring.history import measured
from haina.monitoring.story import crossing
from haina.node.link.http import HttpLink, enrol
from haina.strategy.record import RoundRecord
from haina.wire import invitation, tls
from haina.wire.identity import Credentials, new_key, request
from haina.wire.messages import Ask, Failed, Hello

pytestmark = pytest.mark.slow

ROUNDS = 14
#: Markup, both quotes, and a sign that turns the direction of writing.
NASTY = "<img src=x onerror=\"document.title='taken'\"> & 'quoted' \u202e"
FEDERATION = f"""\
name = "readmission"
seed = 1
[model]
learner = "jax"
kind = "logistic"
[data]
shape = [2]
classes = ["no", "yes"]
[train]
rounds = {ROUNDS}
steps = 4
batch_size = 16
learning_rate = 0.02
[strategy]
preset = "trusted"
[serve]
nodes = 3
quorum = 0.5
deadline = "20s"
every = "0.5s"
test = "test.npz"
held = "test.npz"
"""


def rows(path, n, seed):
    """Two features; the class is on which side of a line they lie, but for 4 % of rows."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 2)).astype(np.float32)
    y = (x @ [1.0, -0.8] > 0) ^ (rng.random(n) < 0.04)
    np.savez(path, x=x, y=y.astype(np.int64))


class Unable(threading.Thread):
    """A node with a certificate that answers every task with a failure."""

    def __init__(self, path):
        super().__init__(daemon=True)
        invited = invitation.read(path, time.time())
        key = new_key()
        own = Credentials.enrolled(key, enrol(invited, request(key, invited.name)))
        self._link = HttpLink(invited.http, tls.client_context(own.authority, own))
        self._over = threading.Event()

    def run(self):
        self._link.hello(Hello(examples=40, software="unable <1>"))
        try:
            while not self._over.is_set():
                task = self._link.ask(Ask(federation="readmission", wait=1.0)).task
                if task is not None:
                    self._link.fail(
                        Failed(
                            federation="readmission", round=task.round, reason=NASTY, where="train.R, line 3"
                        )
                    )
        except Exception:
            # The coordinator is gone: so is what this thread is for.
            return

    def close(self):
        self._over.set()
        if self.ident is not None:
            self.join(10)
        self._link.close()


class House(Served):
    """The federation, and a viewer of it."""

    def __init__(self, folder):
        folder = Path(folder)
        rows(folder / "test.npz", 300, 0)
        super().__init__(folder, text=FEDERATION)
        for seed, name in enumerate(("north", "south"), 1):
            self.haina("invite", name)
            rows(folder / f"{name}.npz", 200, seed)
            self.join(f"{name}.invite", "--data", f"{name}.npz")
        self.haina("invite", "east")
        self.unable = Unable(folder / "east.invite")
        self.haina("invite", "eyes", "--role", "viewer")
        said = finished(self.join("eyes.invite"))
        assert said.code == 0, said
        self.viewer = folder / "haina-node-eyes"

    def begin(self):
        """Let the third node come, without which no round opens."""
        if self.unable.ident is None:
            self.unable.start()

    @property
    def closed(self):
        return self.haina("status", "--json")["federations"][0]["closed"]

    def records(self):
        found = self.haina("rounds", "--json")
        shown = (self.haina("rounds", "show", str(one["number"]), "--json") for one in found)
        return [RoundRecord.from_json(one["record"]) for one in shown if one["record"]]

    def close(self):
        try:
            self.unable.close()
        finally:
            super().close()


@pytest.fixture(scope="module")
def r():
    """The environment of R processes that have the package, and what its views need."""
    return needs_r("ggplot2", "shiny")


@pytest.fixture(scope="module")
def house(tmp_path_factory, r):
    house = House(tmp_path_factory.mktemp("house"))
    try:
        yield house
    finally:
        house.close()


def say(r, code, folder):
    """What R prints; it may warn of nothing."""
    return evaluate(f"options(warn = 2); {code}", folder, r, 180)


class Dashboard:
    """The real app in an R process of its own."""

    def __init__(self, r, folder, log):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        code = f"haina::haina_dashboard('{folder}', port = {self.port}, launch.browser = FALSE, every = 0.5)"
        self.log = log
        with log.open("ab") as sink:
            self.process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", "Rscript", "--vanilla", "-e", code],
                stdout=sink,
                stderr=sink,
                env=r,
            )
        self.address = f"http://127.0.0.1:{self.port}"
        end = time.monotonic() + 60
        while not self.answers():
            assert self.process.poll() is None, log.read_text()
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.1)

    def answers(self):
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def close(self):
        self.process.kill()
        self.process.wait(30)


class Page:
    """The dashboard as a reader sees it."""

    def __init__(self, driver, shots):
        self.driver, self.shots = driver, shots

    def all(self, selector):
        return self.driver.find_elements("css selector", selector)

    def text(self, selector="main"):
        # In one step: an element may be replaced between finding and reading it.
        script = "const e = document.querySelector(arguments[0]); return e ? e.innerText : ''"
        return self.driver.execute_script(script, selector)

    def until(self, holds, seconds=40.0):
        end = time.monotonic() + seconds
        while not (found := holds()):
            assert time.monotonic() < end, self.text()
            time.sleep(0.1)
        return found

    def click(self, selector):
        self.until(lambda: self.all(selector))
        self.driver.execute_script("document.querySelector(arguments[0]).click()", selector)

    def shot(self, name):
        time.sleep(0.4)
        self.driver.save_screenshot(str(self.shots / f"{name}.png"))

    def complaints(self):
        return [line["message"] for line in self.driver.get_log("browser") if line["level"] == "SEVERE"]


@pytest.fixture
def shots(tmp_path):
    """Where screenshots are kept, for whoever wants to see them."""
    folder = tmp_path / "screenshots"
    folder.mkdir()
    return folder


def test_the_dashboard_shows_a_federation_from_waiting_to_finished(house, r, tmp_path, shots):
    require_browser()
    dashboard = Dashboard(r, house.viewer, tmp_path / "shiny.log")
    try:
        with browser(tmp_path / "profile") as driver:
            page = Page(driver, shots)
            driver.get(dashboard.address)
            # Before the first round: what it waits for, and that nothing was evaluated.
            page.until(lambda: "waits for nodes: " in page.text("#heading"))
            page.until(lambda: "No round has opened yet" in page.text("#rounds"))
            assert "No round was evaluated yet" in page.text("#evaluated")
            page.shot("waiting")
            house.begin()
            # It moves by itself.
            page.until(lambda: page.all("#rounds tr.opens") and page.all("#accuracy img"), 90)
            page.until(
                lambda: f"of {ROUNDS}" in page.text("#facts") and "1 failed" in page.text("#rounds"), 90
            )
            page.shot("running")
            # A round: its clients with verdict, share, factors and reason; the one that failed first and red.
            page.click("#rounds tr.opens.red button")
            page.until(lambda: "east" in page.text("#opened"))
            opened = page.text("#opened")
            for words in ("north", "south", "failed", "admitted", "samples 200", "<img src=x onerror"):
                assert words in opened, words
            page.click("#opened summary")
            assert "train.R, line 3" in page.text("#opened pre")
            assert page.all("#opened tr.red .badge.red")[0].text == "failed"
            assert not page.all("#opened img")
            page.shot("round")
            # From there to the node, and back to the page.
            page.click("#opened tr.red button")
            page.until(lambda: "unable <1>" in page.text("#opened"))
            assert "certificate until" in page.text("#opened")
            page.shot("node")
            page.click("button.close")
            page.until(lambda: not page.all("#opened"))
            # Nodes: three, all there, with when they were last seen.
            assert len(page.all("#nodes tbody tr")) == 3
            assert page.text("#nodes").count("just now") == 3
            page.until(lambda: f"{ROUNDS} of {ROUNDS}" in page.text("#facts"), 120)
            assert "finished" in page.text("#heading")
            # The picture opens the round under the pointer.
            driver.execute_script("document.querySelector('#accuracy').scrollIntoView({block: 'center'})")
            from selenium.webdriver.common.action_chains import ActionChains

            ActionChains(driver).move_to_element(page.all("#accuracy img")[0]).click().perform()
            page.until(lambda: page.all("#opened h2"))
            assert page.text("#opened h2") in {f"Round {n}" for n in range(3, ROUNDS - 1)}
            page.click("button.close")
            page.shot("finished")
            as_phone(driver)
            driver.get(dashboard.address)
            page.until(lambda: page.all("#rounds tr.opens") and page.all("#accuracy img"))
            width = driver.execute_script("return document.documentElement.scrollWidth")
            assert width <= 390
            page.shot("phone")
            page.click("#rounds tr.opens button")
            page.until(lambda: "east" in page.text("#opened"))
            page.shot("phone-round")
            assert driver.execute_script("return document.documentElement.scrollWidth") <= 390
            assert driver.title == "Haina"
            assert page.complaints() == []
    finally:
        dashboard.close()
    assert "Warning" not in dashboard.log.read_text()


def test_the_report_says_what_python_says(house, r, tmp_path):
    house.begin()
    house.until(lambda: house.closed == ROUNDS, 180)
    code = (
        f"r <- haina_report('{house.viewer}', out = 'out', window = 1); "
        "cat(jsonlite::toJSON(list(names = names(r), title = r$accuracy$labels$title, value = sprintf('%a', r$accuracy$data$value))))"
    )
    said = json.loads(say(r, code, tmp_path))
    records = house.records()
    points = measured(records, "accuracy")
    assert len(points) == ROUNDS
    assert [float.fromhex(value) for value in said["value"]] == [value for _, value in points]
    title = " ".join(said["title"][0].split())
    assert title.startswith(crossing(points, 0.9).replace("It ", "Accuracy ", 1).rstrip("."))
    assert said["names"] == ["accuracy", "loss", "shares", "trust"]
    for name in said["names"]:
        assert (tmp_path / f"out/{name}.png").read_bytes().startswith(b"\x89PNG")
    # The coordinator's own state folder serves as well, and a named federation.
    code = f"cat(nrow(haina_report('{house.folder}/state', federation = 'readmission')$accuracy$data))"
    assert say(r, code, tmp_path) == str(ROUNDS)
    code = f"cat(tryCatch(haina_report('{house.viewer}', federation = 'other'), error = conditionMessage))"
    assert say(r, code, tmp_path) == "there is no federation other. Allowed: readmission."


def test_a_coordinator_of_another_authority_is_not_believed(house, r, tmp_path):
    stranger, elsewhere = tmp_path / "stranger", tmp_path / "elsewhere"
    shutil.copytree(house.viewer, stranger)
    elsewhere.mkdir()
    other = Served(elsewhere)
    try:
        place = json.loads((stranger / "coordinator.json").read_text())
        (stranger / "coordinator.json").write_text(json.dumps({**place, "http": other.ready["http"]}))
        said = say(r, f"cat(tryCatch(haina_report('{stranger}'), error = conditionMessage))", tmp_path)
        assert "did not answer" in said
        assert "certificate" in said
    finally:
        other.close()


def test_while_the_coordinator_is_away_the_page_says_so_and_goes_on(tmp_path, r, shots):
    require_browser()
    folder = tmp_path / "house"
    folder.mkdir()
    house = House(folder)
    dashboard = None
    try:
        house.begin()
        house.until(lambda: house.closed >= 2, 120)
        dashboard = Dashboard(r, house.viewer, tmp_path / "shiny.log")
        with browser(tmp_path / "profile") as driver:
            page = Page(driver, shots)
            driver.get(dashboard.address)
            page.until(lambda: page.all("#rounds tr.opens"))
            assert not page.all(".banner")
            house.server.kill()
            house.server.wait(30)
            page.until(lambda: page.all(".banner"))
            assert "Paused" in page.text(".banner")
            assert "did not answer" in page.text(".banner")
            # What was seen stays.
            assert page.all("#rounds tr.opens")
            page.shot("away")
            ports = {door: house.ready[door].rsplit(":", 1)[1] for door in ("http", "grpc")}
            house.start(http=f"127.0.0.1:{ports['http']}", grpc=f"127.0.0.1:{ports['grpc']}")
            page.click("button.again")
            page.until(lambda: not page.all(".banner"), 60)
            # And when R is gone, the page says that.
            dashboard.close()
            page.until(lambda: page.all("#shiny-disconnected-overlay"))
            said = driver.execute_script(
                "return getComputedStyle(document.querySelector('#shiny-disconnected-overlay'), '::after').content"
            )
            assert "lost its R session" in said
            page.shot("disconnected")
    finally:
        if dashboard is not None:
            dashboard.close()
        house.close()


def test_a_page_of_the_web_cannot_read_the_dashboard(tmp_path, r):
    """Neither under a name that was made to lead here, nor by a socket from another origin."""
    run = tmp_path / "run"
    run.mkdir()
    (run / "federation.toml").write_text('name = "secret"\n')
    dashboard = Dashboard(r, run, tmp_path / "shiny.log")
    try:
        assert b"viewport" in urllib.request.urlopen(dashboard.address, timeout=20).read()
        asked = urllib.request.Request(dashboard.address, headers={"Host": "evil.example"})
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(asked, timeout=20)
        assert refused.value.code == 403
        refused.value.close()
        assert b"secret" in greeted(dashboard.port, dashboard.address)
        assert b"secret" not in greeted(dashboard.port, "https://evil.example")
    finally:
        dashboard.close()


def greeted(port, origin):
    """What the app tells a socket from a page of some origin within seconds."""
    with socket.create_connection(("127.0.0.1", port), timeout=6) as wire:
        wire.sendall(
            f"GET /websocket/ HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nOrigin: {origin}\r\n"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n".encode()
        )
        said = wire.recv(4096)
        assert b"101" in said
        hello = json.dumps({"method": "init", "data": {}}).encode()
        hello = json.dumps({"method": "init", "data": {".clientdata_output_heading_hidden": False}}).encode()
        wire.sendall(bytes([0x81, 0x80 | len(hello), 0, 0, 0, 0]) + hello)
        heard = b""
        try:
            while b"secret" not in heard and (more := wire.recv(1 << 16)):
                heard += more
        except TimeoutError:
            pass
        return heard


class Exporter(http.server.BaseHTTPRequestHandler):
    """An endpoint in Prometheus's text format."""

    accuracy = 0.9375

    def do_GET(self):
        labels = '{federation="readmission"}'
        body = (
            "# HELP haina_accuracy Of the newest model.\n# TYPE haina_accuracy gauge\n"
            f"haina_accuracy{labels} {self.accuracy}\nhaina_round{labels} 7\n"
        ).encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


def test_an_endpoint_of_prometheus_is_read(tmp_path, r):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Exporter)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        address = f"http://127.0.0.1:{server.server_port}/metrics"
        code = f"r <- haina_report(prometheus = '{address}', out = 'trend.svg'); cat(unlist(r$accuracy$data[c('round', 'value')]))"
        assert say(r, code, tmp_path) == "7 0.9375"
        assert "<svg" in (tmp_path / "trend.svg").read_text()
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


def test_the_pictures_of_the_document(tmp_path, r):
    """`docs/r-views.md` as it stands: the run, and the pictures of it."""
    text = (Path(__file__).parents[2] / "docs/r-views.md").read_text()
    for name, body in re.findall(r"^```\w+ (\S+)\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        (tmp_path / name).write_text(body)
    assert finished(spawn("run", "iris.toml", "--quiet", cwd=tmp_path)).code == 0
    said = evaluate("print(source('pictures.R')$value)", tmp_path, r)
    assert "Warning" not in said
    assert (tmp_path / "accuracy.png").stat().st_size > 10_000
    made = {path.name for path in (tmp_path / "pictures").iterdir()}
    assert made == {"accuracy.png", "loss.png", "shares.png"}


def until_kept(address, value):
    """Wait until a server has kept a value, and then so long that a step of a second meets it."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        try:
            with urllib.request.urlopen(
                f"http://{address}/api/v1/query?query=haina_accuracy", timeout=5
            ) as answer:
                series = json.load(answer)["data"]["result"]
            if series and float(series[0]["value"][1]) == value:
                time.sleep(2.5)
                return
        except OSError:
            # It is starting.
            pass
        time.sleep(0.2)
    raise AssertionError(f"{value} was never kept")


PROMETHEUS = """\
global: {scrape_interval: 500ms}
scrape_configs:
  - job_name: haina
    static_configs: [{targets: ["127.0.0.1:%d"]}]
"""


def test_the_history_of_a_real_prometheus(tmp_path, r):
    """A server scrapes an endpoint whose accuracy rises; R asks it for the course. Its own exposition, hundreds of samples, is read as well."""
    if shutil.which("prometheus") is None:
        pytest.skip("prometheus is not installed (Debian: apt-get install prometheus)")
    endpoint = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Exporter)
    thread = threading.Thread(target=endpoint.serve_forever, daemon=True)
    thread.start()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    (tmp_path / "prometheus.yml").write_text(PROMETHEUS % endpoint.server_port)
    options = (
        "--config.file=prometheus.yml",
        "--storage.tsdb.path=kept",
        f"--web.listen-address={address}",
    )
    with (tmp_path / "prometheus.log").open("wb") as log:
        server = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "prometheus", *options], stdout=log, stderr=log, cwd=tmp_path
        )
    try:
        course = [0.5, 0.75, 0.90625, 0.9375]
        for value in course:
            Exporter.accuracy = value
            until_kept(address, value)
        code = (
            f"h <- haina_report(prometheus = 'http://{address}', federation = 'readmission', hours = 0.1)$accuracy$data; "
            f"m <- haina_exposition(rawToChar(curl::curl_fetch_memory('http://{address}/metrics')$content)); "
            "cat(jsonlite::toJSON(list(value = sprintf('%a', h$value), samples = nrow(m), "
            "up = m$value[m$name == 'prometheus_ready'])))"
        )
        said = json.loads(evaluate(code, tmp_path, r))
        assert [float.fromhex(value) for value in said["value"]] == course
        assert said["samples"][0] > 300
        assert said["up"] == [1]
    finally:
        server.kill()
        server.wait(30)
        endpoint.shutdown()
        endpoint.server_close()
        thread.join(10)
        Exporter.accuracy = 0.9375
