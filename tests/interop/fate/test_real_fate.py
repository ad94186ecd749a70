"""The whole way with FATE 2.2.0 itself: rows from R, taken up, an R task and HomoLR as one job, the model home again, and Haina's own the same.

Two to five minutes: FATE starts a process for each task of each party.
"""

import json
import shutil
import subprocess

import numpy as np
import pytest
from command import finished, spawn
from fate import ROOT, fate_flow, require_fate
from homo_lr import trained
from processes import wait
from rlang import environment, require_r

from haina.interop.fate.flow import Flow
from haina.interop.fate.model import read_json
from haina.interop.fate.rest import FlowError

ROWS = """
for (file in c("errors.R", "fate.R")) source(file.path("%(r)s", file))
set.seed(11)
n <- 360
rows <- data.frame(age = rnorm(n), bmi = rnorm(n), ward = factor(sample(c("a", "b", "c"), n, TRUE)))
rows$died <- rbinom(n, 1, plogis(-0.3 + 1.1 * rows$age - 0.7 * rows$bmi + 0.6 * (rows$ward == "b")))
# Sites of unlike sizes, so that a mean that is not weighted would be seen.
fate_export(rows[1:240, ], "guest-rows.csv", label = "died")
fate_export(rows[241:n, ], "host-rows.csv", label = "died", first = 240)
local <- function(file) coef(glm(y ~ x0 + x1 + x2 + x3, binomial, read.csv(file)))
for (site in c("guest", "host")) writeLines(sprintf("%%.17g", local(paste0(site, "-rows.csv"))), paste0(site, ".fit"))
"""


def typed(*args, cwd):
    said = finished(spawn("fate", *args, cwd=cwd), timeout=540)
    assert said.code == 0, said.err
    return said


@pytest.mark.fate
@pytest.mark.slow
def test_from_r_through_fate_and_back(tmp_path):
    require_fate()
    rscript = require_r("plumber", "jsonlite")
    code = ROWS % {"r": ROOT / "r" / "haina" / "R"}
    subprocess.run(
        [rscript, "--vanilla", "-e", code], cwd=tmp_path, env=environment(), timeout=120, check=True
    )
    port = "18773"
    service = subprocess.Popen(
        [rscript, "--vanilla", ROOT / "examples" / "rservice" / "service.R", port],
        cwd=tmp_path,
        env=environment(),
    )
    try:
        with fate_flow() as url:
            options = ["--id", "id", "--epochs", "8", "--learning-rate", "0.8", "--alpha", "0.02"]
            task = ["--r-script-url", f"http://localhost:{port}/run_logistic_regression", "--timeout", "60"]
            typed("export", "guest-rows.csv", "host-rows.csv", "--out", "job", *options, *task, cwd=tmp_path)
            uploads = [f"job/upload-2-{site}.json" for site in ("guest", "host")]
            typed("upload", "--url", url, *uploads, cwd=tmp_path)
            said = typed(
                "submit", "--url", url, "job/dag.json", "--model", "fate.json", "--json", cwd=tmp_path
            )
            job = json.loads(said.out)["job"]
            flow = Flow(url)
            fits = {
                site: read_json(json.dumps(flow.model(job, "haina_r_0", site, party)))
                for site, party in (("guest", 9999), ("host", 9998))
            }
            # FATE's words and number for what it does not have.
            with pytest.raises(FlowError) as refused:
                flow.status("nosuchjob")
            assert refused.value.code == 1001
            # A job that cannot work is said to have failed, and where.
            broken = json.loads((tmp_path / "job" / "dag.json").read_text())
            for task in ("homo_lr_0", "evaluation_0"):
                del broken["dag"]["tasks"][task]
            broken["dag"]["tasks"]["haina_r_0"]["parameters"]["r_script_url"] = "http://10.1.2.3/rows"
            number = flow.submit(broken)
            with pytest.raises(FlowError, match="haina_r_0 at guest 9999"):
                flow.follow(number, patience=300)
            home = (
                require_fate() / "home" / "logs" / number / "guest" / "9999" / "haina_r_0" / "root" / "ERROR"
            )
            assert "services on its own machine" in wait(
                lambda: home.exists() and home.read_text(), "the cause", 30
            )
            # A job that is stopped ends.
            stopped = flow.submit(json.loads((tmp_path / "job" / "dag.json").read_text()))
            typed("stop", "--url", url, stopped, cwd=tmp_path)
            with pytest.raises(FlowError, match="canceled"):
                flow.follow(stopped, patience=120)
            flow.close()
    finally:
        service.terminate()
        service.wait(20)

    # The R task: what glm() finds at each site alone.
    for site, model in fits.items():
        wanted = np.array((tmp_path / f"{site}.fit").read_text().split(), np.float64)
        assert np.abs(np.array([model.intercept, *model.weights]) - wanted).max() < 1e-12

    # HomoLR: what Haina's own FedAvg makes of the same tables, by the federation file that was written with the job.
    model = read_json((tmp_path / "fate.json").read_bytes())
    shutil.copytree(tmp_path / "job", tmp_path / "again")
    text = (tmp_path / "again" / "federation.toml").read_text()
    ours = trained(tmp_path / "again", text, 8)
    found = np.abs(ours - [model.intercept, *model.weights]).max()
    print(f"HomoLR of FATE 2.2.0 against Haina: {found:.2g}")
    assert found < 1e-6
