"""R sites and Python nodes in federations of real processes, over mutual TLS: `haina serve`, `haina join`, `haina::join()`."""

import csv
import hashlib
import json
import os
import signal
import time

import numpy as np
import pytest
from processes import Ledger, wait
from rsite import RSite, evaluate
from served import Served

from haina.artifact import load
from haina.coordinator.authority import Authority
from haina.learners.glm import GlmResult
from haina.wire.identity import Credentials, fingerprint

pytestmark = pytest.mark.slow

TERMS = ("(Intercept)", "age", "stay")
GLM = 'train_glm(read.csv("{name}.csv"))'


class Trial(Served):
    """A coordinator, and what its store says."""

    def __init__(self, folder, text=None, **options):
        super().__init__(folder, text, **options)
        self.ledger = Ledger(self.folder / "state" / "coordinator.sqlite")
        self.sites = []

    def r(self, name, train=GLM, **options):
        site = RSite(name, train.format(name=name), self.folder, **options)
        self.sites.append(site)
        return site.start()

    def close(self):
        for site in self.sites:
            site.kill()
        super().close()

    def blob(self, sha256):
        return next((self.folder / "state" / "blobs").rglob(sha256)).read_bytes()

    def model(self):
        (sha256,) = self.ledger.rows("SELECT sha256 FROM model ORDER BY version DESC LIMIT 1")[0]
        return np.concatenate([tensor.ravel() for tensor in load(self.blob(sha256))[0].values()])

    def fit(self):
        """The finished regression."""
        (sha256,) = self.ledger.rows("SELECT state_sha256 FROM model ORDER BY version DESC LIMIT 1")[0]
        arrays = load(self.blob(sha256))[0]
        server = {
            name.removeprefix("server/"): array
            for name, array in arrays.items()
            if name.startswith("server/")
        }
        return GlmResult.of(self.model(), server, "binomial", TERMS)

    def heard(self, status):
        return {
            (number, node): reason
            for number, node, reason in self.ledger.rows(
                "SELECT round, node, reason FROM contribution WHERE status = ?", status
            )
        }

    def records(self):
        return [
            json.loads(text)
            for (text,) in self.ledger.rows("SELECT record FROM round WHERE state = 'closed' ORDER BY number")
        ]


@pytest.fixture
def trial(tmp_path):
    made = []

    def make(*args, **options):
        made.append(Trial(tmp_path, *args, **options))
        return made[-1]

    yield make
    for one in made:
        one.close()


def pooled(folder, names):
    """R's own glm of all rows together."""
    files = ", ".join(f'"{name}.csv"' for name in names)
    said = evaluate(
        f"d <- do.call(rbind, lapply(c({files}), read.csv)); "
        'fit <- glm(readmitted == "yes" ~ age + stay, binomial, d, control = glm.control(epsilon = 1e-14)); '
        'cat(sprintf("%.17g", coef(fit)), sep = "\\n"); cat("\\n"); cat(sprintf("%.17g", sqrt(diag(vcov(fit)))), sep = "\\n")',
        folder,
    )
    return np.array([float(word) for word in said.split()]).reshape(2, -1)


def test_four_r_sites_and_two_python_nodes_fit_the_pooled_regression(trial):
    house = trial(nodes=6)
    r, python = ("r1", "r2", "r3", "r4"), ("p1", "p2")
    house.invited(*r, *python)
    sites = [house.r(name) for name in r]
    nodes = [house.join(f"{name}.invite", "--data", f"{name}.csv") for name in python]
    assert [site.ends() for site in sites] == [0] * 4, sites[0].text()
    assert [node.wait(30) for node in nodes] == [0, 0]
    coefficients, errors = pooled(house.folder, [*r, *python])
    fit = house.fit()
    assert fit.converged
    assert np.abs(fit.coefficients - coefficients).max() < 1e-8
    assert np.abs(fit.standard_errors - errors).max() < 1e-6
    # Everybody counted in every round, and the coordinator verified each signature over R's bytes.
    assert {len(record["clients"]) for record in house.records()} == {6}
    assert all("state: the fit has converged" in site.text() for site in sites)
    software = dict(house.ledger.rows("SELECT name, software FROM node WHERE role = 'node'"))
    assert software["r1"] == "haina-r 0.1.0"


def test_sites_that_fail_die_and_hang_are_named_and_the_run_ends_right(trial):
    text = (
        'name = "readmission"\n[model]\nlearner = "glm"\nfamily = "binomial"\n[data]\ntarget = "readmitted"\n'
        'features = ["age", "stay"]\nclasses = ["no", "yes"]\ntest = 0\n[train]\nrounds = 25\n'
        '[serve]\nnodes = 6\nquorum = 3\ndeadline = "3s"\n'
    )
    house = trial(text)
    house.invited("r1", "r2", "r3", "r4", "p1", "p2")
    wrapped = (
        '(function() {{ fit <- train_glm(read.csv("{name}.csv")); structure(function(params, config) {{ {first}; '
        'fit(params, config) }}, examples = attr(fit, "examples")) }})()'
    )
    breaks = 'if (config$round == 2) stop("the ward\'s list is being mended")'
    stays = 'if (config$round == 3) {{ cat("round 3 begins\\\\n"); Sys.sleep(600) }}'
    failing = house.r("r1", wrapped.format(name="r1", first=breaks).replace("{", "{{").replace("}", "}}"))
    dying = house.r("r2", wrapped.format(name="r2", first=stays).replace("{", "{{").replace("}", "}}"))
    hanging = house.r("r3", wrapped.format(name="r3", first=stays).replace("{", "{{").replace("}", "}}"))
    steady = house.r("r4")
    nodes = [house.join(f"{name}.invite", "--data", f"{name}.csv") for name in ("p1", "p2")]
    dying.says("round 3 begins")
    hanging.says("round 3 begins")
    dying.kill()
    hanging.halt()
    assert failing.ends(120) == 0, failing.text()
    assert steady.ends(30) == 0
    assert [node.wait(30) for node in nodes] == [0, 0]
    # Who failed is named, with R's words; the dead and the hanging are named as those who did not come.
    assert house.heard("failed")[2, "r1"] == "the ward's list is being mended"
    third = {client["client"]: client["verdict"] for client in house.records()[2]["clients"]}
    assert {name for name, verdict in third.items() if verdict not in ("admitted", "clipped", "damped")} == {
        "r2",
        "r3",
    }
    coefficients, errors = pooled(house.folder, ["r1", "r4", "p1", "p2"])
    fit = house.fit()
    assert fit.converged
    assert np.abs(fit.coefficients - coefficients).max() < 1e-8
    assert np.abs(fit.standard_errors - errors).max() < 1e-6


VECTOR = """\
name = "vectors"
[model]
learner = "vector"
size = {size}
[data]
shape = [1]
task = "regression"
test = 0
[train]
rounds = {rounds}
[serve]
nodes = {nodes}
codecs = ["raw"]
deadline = "60s"
{more}
"""
#: Doubles whose bits anything but the bits themselves would lose.
ODD = [
    0.1,
    1 / 3,
    5e-324,
    2.2250738585072014e-308,
    1e16,
    1e-5,
    -np.pi,
    4503599627370497.5,
    1.0000000000000002e30,
]


def test_doubles_come_down_and_go_up_bit_for_bit(trial):
    house = trial(
        VECTOR.format(size=9, rounds=1, nodes=1, more="").replace("size = 9", f"size = 9\ninitial = {ODD}")
    )
    house.haina("invite", "solo")
    # Twice what came in: the increment that goes up is what came in.
    site = house.r(
        "solo", "structure(function(params, config) list(params = 2 * params, n = 1), examples = 1)"
    )
    assert site.ends() == 0, site.text()
    (sent,) = house.ledger.rows("SELECT sha256, bytes, codec, status FROM contribution")
    assert sent == (hashlib.sha256(np.array(ODD).tobytes()).hexdigest(), 72, "raw", "accepted")


def test_a_site_killed_before_delivery_sends_the_same_bytes(trial):
    house = trial(VECTOR.format(size=5, rounds=2, nodes=1, more=""))
    house.haina("invite", "solo")
    # Other numbers at each call: trained anew, the bytes would differ.
    train = (
        'structure(function(params, config) {{ cat("x", file = "trained", append = TRUE); Sys.sleep(1); '
        "list(params = as.double(Sys.time()) + 1:5, n = 7) }}, examples = 7)"
    )
    site = house.r("solo", train)
    trained = house.folder / "trained"
    wait(trained.exists, "training has begun")
    os.kill(house.server.pid, signal.SIGSTOP)
    outbox = house.folder / "haina-node-solo" / "vectors" / "outbox" / "000000000001"
    wait((outbox / "manifest.json").exists, "the update lies in the outbox")
    site.kill()
    body = (outbox / "body").read_bytes()
    assert len(body) == 40
    os.kill(house.server.pid, signal.SIGCONT)
    site.start()
    site.says("round 1: delivered")
    (sent,) = house.ledger.rows("SELECT sha256, status FROM contribution WHERE round = 1")
    assert sent == (hashlib.sha256(body).hexdigest(), "accepted")
    assert site.ends() == 0
    # Once a round: the second time it was delivered, not trained.
    assert trained.read_text() == "xx"


def test_a_duplicate_is_harmless(trial):
    house = trial(VECTOR.format(size=5, rounds=2, nodes=1, more='every = "8s"'))
    house.haina("invite", "solo")
    site = house.r(
        "solo",
        "structure(function(params, config) list(params = params + 1, n = 7), examples = 7)",
        join=", once = TRUE",
    )
    assert site.ends() == 0
    folder = house.folder / "haina-node-solo" / "vectors"
    # Killed after the acknowledgement and before its own note of it, a site has the parcel still; made again, it is the same but for the signature.
    again = (
        f'f <- "{folder}"; site <- haina:::new_site(dirname(f), identity, NULL, 7, FALSE, TRUE, "", NULL, message); '
        'haina:::welcomed(site); body <- haina:::float_bytes(rep(1, 5), 8L); task <- list(federation = "vectors", round = 1, version = 0); '
        'm <- haina:::signed(haina:::manifest_of(site, task, body, "raw", 5, list(examples = 7, steps = 1)), site$own$key); '
        "haina:::outbox_put(site$outbox, m, body)"
    )
    evaluate(again, house.folder)
    assert (folder / "outbox" / "000000000001" / "body").exists()
    site.start()
    assert site.ends() == 0
    assert site.text().count("round 1: delivered (40 bytes)") == 2
    assert house.ledger.rows("SELECT COUNT(*) FROM contribution WHERE round = 1") == [(1,)]
    assert not list((folder / "outbox").iterdir())


def test_periodic_sites_and_settings_that_are_pushed(trial):
    house = trial(VECTOR.format(size=3, rounds=40, nodes=1, more='mode = "buffered"\nbuffer = 1'))
    house.haina("invite", "solo")
    house.haina("config", "set", "report_interval=1s")
    train = (
        'structure(function(params, config) {{ cat("interval", config$settings$report_interval, "\\\\n"); '
        "list(params = params + 1, n = 7) }}, examples = 7)"
    )
    site = house.r("solo", train, join=", periodic = TRUE")
    site.says("interval 1 ")
    house.haina("config", "set", "report_interval=2s", "upload_bytes_per_second=1000000")
    site.says("interval 2 ")
    begun = time.monotonic()
    before = house.ledger.closed
    house.until(lambda: house.ledger.closed >= before + 2)
    # Twice its own time, and not as fast as rounds open.
    assert time.monotonic() - begun > 2.0
    (seen,) = house.ledger.rows("SELECT mode, settings_version FROM node WHERE name = 'solo'")
    assert seen[0] == "periodic"
    (newest,) = house.ledger.rows("SELECT MAX(version) FROM setting")
    house.until(
        lambda: house.ledger.rows("SELECT settings_version FROM node WHERE name = 'solo'")[0] == newest
    )


def test_wrong_numbers_are_refused_at_the_site_in_words(trial):
    house = trial(VECTOR.format(size=3, rounds=4, nodes=1, more=""))
    house.haina("invite", "solo")
    wrong = (
        "structure(function(params, config) switch(config$round, list(params = c(1, NA, 3), n = 7), list(params = 1:2, n = 7), "
        "list(params = letters[1:3], n = 7), list(params = 1:3, n = 7)), examples = 7)"
    )
    site = house.r("solo", wrong)
    site.says("round 4: delivered", 90)
    said = house.heard("failed")
    assert said[1, "solo"] == "train() returned 1 params that are NA, NaN or infinite"
    assert said[2, "solo"] == "train() returned 2 params"
    assert said[3, "solo"] == "train() returned params of type character"
    house.until(lambda: house.model().tolist() == [1.0, 2.0, 3.0])


def lasso_rows(path, seed):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(120, 3))
    y = 1 + 2 * x[:, 0] - x[:, 1] + rng.normal(size=120)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["y", "x1", "x2", "x3"])
        writer.writerows(np.column_stack([y, x]).tolist())


def test_a_lasso_sends_its_coefficients_and_how_many_rows_and_nothing_else(trial):
    names = '["(Intercept)", "x1", "x2", "x3"]'
    text = VECTOR.format(size=4, rounds=1, nodes=2, more="").replace("size = 4", f"names = {names}")
    house = trial(text)
    for seed, name in enumerate(("a", "b")):
        house.haina("invite", name)
        lasso_rows(house.folder / f"{name}.csv", seed)
    train = 'train_glmnet(read.csv("{name}.csv"), y ~ x1 + x2 + x3, lambda = 0.05)'
    sites = [house.r(name, train, packages=("glmnet",)) for name in ("a", "b")]
    assert [site.ends() for site in sites] == [0, 0], sites[0].text()
    fits = []
    for name in ("a", "b"):
        said = evaluate(
            f'd <- read.csv("{name}.csv"); fit <- glmnet::glmnet(as.matrix(d[c("x1", "x2", "x3")]), d$y, lambda = 0.05); '
            'cat(sprintf("%.17g", as.numeric(glmnet::coef.glmnet(fit))))',
            house.folder,
        )
        fits.append(np.array([float(word) for word in said.split()]))
    sent = {
        node: (sha256, size, json.loads(report))
        for node, sha256, size, report in house.ledger.rows(
            "SELECT node, sha256, bytes, report FROM contribution"
        )
    }
    for name, fit in zip(("a", "b"), fits, strict=True):
        # The bytes are the coefficients, and beside them there is the number of rows.
        assert sent[name] == (hashlib.sha256(fit.tobytes()).hexdigest(), 32, {"examples": 120.0, "steps": 1})
    assert np.allclose(house.model(), (fits[0] + fits[1]) / 2, atol=1e-12, rtol=0)


def test_a_promise_that_changes_is_refused(trial):
    private = VECTOR.format(size=3, rounds=50, nodes=1, more="").replace('codecs = ["raw"]\n', "") + (
        '[privacy]\nnoise = "central"\nclip = 1.0\nmechanism = {gaussian = {noise_multiplier = 1.0}}\n'
    )
    house = trial(private)
    house.haina("invite", "solo")
    site = house.r(
        "solo",
        "structure(function(params, config) list(params = params + 5, n = 7), examples = 7)",
        join=", once = TRUE",
    )
    assert site.ends() == 0, site.text()
    # What is sent is no longer than the limit, and says no more than it must.
    (size, report) = house.ledger.rows("SELECT square, report FROM contribution WHERE round = 1")[0]
    assert size is None or 0.999 < size <= 1.0 + 1e-6
    assert set(json.loads(report)) <= {"examples", "steps", "staleness"}
    pin = house.folder / "haina-node-solo" / "vectors" / "promised.json"
    pin.write_text(pin.read_text().replace('"clip": 1.0', '"clip": 0.5'))
    site.start()
    assert site.ends() == 1
    assert (
        "promised something else when this site first took part: [privacy] clip was 0.5, and is 1"
        in site.text()
    )
    assert "delete" in site.text()
    pin.unlink()
    site.start()
    assert site.ends() == 0


def test_an_invitation_that_is_damaged_expired_or_used_is_refused(trial):
    house = trial(VECTOR.format(size=3, rounds=1, nodes=2, more=""))
    house.haina("invite", "solo")
    path = house.folder / "solo.invite"
    good = json.loads(path.read_text())
    for change, words in (
        ({"fingerprint": "0" * 64}, "does not have the fingerprint beside it"),
        ({"expires": "2020-01-01T00:00:00+00:00"}, "expired at"),
        ({"haina_invitation": 2}, "newer Haina"),
        ({"http": "http://example.org"}, "damaged"),
    ):
        path.write_text(json.dumps({**good, **change}))
        site = house.r("solo", "function(params, config) NULL")
        assert site.ends() == 1
        assert words in site.text(), site.text()
        assert good["token"] not in site.text()
    path.write_text(json.dumps(good))
    site = house.r("solo", "function(params, config) NULL")
    site.says("takes part in vectors")
    folder = house.folder / "haina-node-solo"
    assert (folder / "identity.pem").stat().st_mode & 0o777 == 0o600
    assert not (folder / "pending-key.pem").exists()
    # A second process in the folder, and a second use of the invitation.
    second = RSite("solo", "function(params, config) NULL", house.folder)
    second.log = house.folder / "second.log"
    house.sites.append(second.start())
    assert second.ends() == 1
    assert "another process" in second.text()
    site.kill()
    third = RSite("solo", "function(params, config) NULL", house.folder, join=', folder = "elsewhere"')
    third.log = house.folder / "third.log"
    house.sites.append(third.start())
    assert third.ends() == 1
    assert "cannot be used: used" in third.text()


def test_a_python_node_says_that_it_has_nothing_to_train(trial):
    house = trial(
        VECTOR.format(size=1, rounds=1, nodes=2, more="quorum = 1").replace(
            'deadline = "60s"', 'deadline = "5s"'
        )
    )
    for name in ("solo", "python"):
        house.haina("invite", name)
    np.savez(house.folder / "rows.npz", x=np.ones((20, 1)), y=np.arange(20) % 2)
    house.join("python.invite", "--data", "rows.npz")
    site = house.r("solo", "structure(function(params, config) list(params = 2.5, n = 7), examples = 7)")
    assert site.ends() == 0, site.text()
    assert "no training here" in house.heard("failed")[1, "python"]
    assert house.model().tolist() == [2.5]


def test_a_certificate_is_renewed_when_it_is_due(trial):
    house = trial(VECTOR.format(size=3, rounds=1, nodes=2, more=""))
    house.haina("invite", "solo")
    site = house.r("solo", "function(params, config) NULL")
    site.says("takes part in vectors")
    site.kill()
    folder = house.folder / "haina-node-solo"
    before = Credentials.load(folder)
    code = (
        f'site <- haina:::new_site("{folder}", identity, NULL, 1, FALSE, TRUE, "", NULL, message); site$own$renewal <- 0; '
        "haina:::keep_identity(site); site$federation <- NULL; cat(haina:::say_hello(site)$name)"
    )
    assert evaluate(code, house.folder) == "solo"
    # Python reads the folder that R has written: the same key, another certificate.
    after = Credentials.load(folder)
    assert after.serial != before.serial
    assert after.key == before.key
    assert after.name == "solo"


def test_nobody_is_trusted_but_the_authority_of_the_invitation(trial, tmp_path):
    house = trial(VECTOR.format(size=3, rounds=1, nodes=2, more=""))
    house.haina("invite", "solo")
    path = house.folder / "solo.invite"
    good = json.loads(path.read_text())
    Authority.open(tmp_path / "other", time.time)
    other = (
        "-----BEGIN CERT" + (tmp_path / "other" / "authority.pem").read_text().partition("-----BEGIN CERT")[2]
    )
    path.write_text(json.dumps({**good, "authority": other, "fingerprint": fingerprint(other)}))
    site = house.r("solo", "function(params, config) NULL")
    site.says("Trying again")
    assert "did not answer" in site.text()
    assert not (house.folder / "haina-node-solo" / "identity.pem").exists()
