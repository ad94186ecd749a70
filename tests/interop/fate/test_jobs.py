"""Jobs as files. The golden ones were looked at by hand, ran in FATE 2.2.0, and pass what FATE itself has to say of them."""

import copy
import json
from dataclasses import replace
from pathlib import Path

import pytest
from fate import judged, require_fate

from haina.errors import ConfigError
from haina.interop.fate.dag import dag
from haina.interop.fate.dsl import conf, dsl
from haina.interop.fate.job import HomoLr, Job, RTask, Site, Table

GOLDEN = Path(__file__).parents[1] / "golden"
HERE = Path(__file__).parent

GUEST, HOST = Site(9999, Table("haina", "guest")), Site(9998, Table("haina", "host"))
SETTINGS = HomoLr(epochs=60, learning_rate=1.0)
JOB = Job(GUEST, [HOST], 9998, SETTINGS, rows=400)
R = RTask("http://localhost:8000/run_logistic_regression")
THREE = Job(
    GUEST,
    [HOST, Site(9997, Table("haina", "north"))],
    10000,
    HomoLr(epochs=5, learning_rate=0.15, alpha=0.01, batch_size=64),
    rows=400,
    evaluate=False,
)

FILES = {
    "dag.json": dag(JOB),
    "dag-r.json": dag(replace(JOB, r=R)),
    "dag-r-json.json": dag(replace(JOB, r=RTask(R.r_script_url, 12.5, "json"))),
    "dag-three.json": dag(THREE),
    "dsl.json": dsl(JOB),
    "conf.json": conf(JOB),
    "dsl-dataio.json": dsl(JOB, dataio=True),
    "conf-dataio.json": conf(JOB, dataio=True),
    "dsl-three.json": dsl(THREE),
    "conf-three.json": conf(THREE),
}


@pytest.mark.parametrize("name", FILES)
def test_jobs_are_written_as_they_were_when_fate_took_them(name):
    assert FILES[name] == json.loads((GOLDEN / name).read_text())


def test_no_golden_file_is_left_over():
    assert {path.name for path in GOLDEN.glob("d*.json")} | {
        path.name for path in GOLDEN.glob("c*.json")
    } == set(FILES)


def broken(job, change):
    job = copy.deepcopy(job)
    change(job["dag"]["tasks"])
    return job


@pytest.mark.fate
@pytest.mark.slow
def test_fate_2_takes_the_dags_and_would_say_no(tmp_path):
    bad = {
        "no-component": (lambda tasks: tasks["homo_lr_0"].pop("component_ref"), "component_ref"),
        "penalty": (
            lambda tasks: tasks["homo_lr_0"]["parameters"]["optimizer"].update(penalty="l3"),
            "penalty",
        ),
        # What FATE's own client offers for all rows.
        "batch": (
            lambda tasks: tasks["homo_lr_0"]["parameters"].update(batch_size=-1),
            "greater than or equal",
        ),
        "unknown": (lambda tasks: tasks["homo_lr_0"].update(component_ref="homo_lm"), "homo_lm"),
        "no-time": (lambda tasks: tasks["haina_r_0"]["parameters"].update(timeout=0), "greater than 0"),
    }
    for name, (change, _) in bad.items():
        (tmp_path / name).write_text(json.dumps(broken(FILES["dag-r.json"], change)))
    good = [name for name in FILES if name.startswith("dag")]
    files = [*(GOLDEN / name for name in good), *(tmp_path / name for name in bad)]
    said = judged("venv", HERE / "judge_v2.py", *files)
    assert said.returncode == 0, said.stderr[-2000:]
    verdicts = json.loads(said.stdout.splitlines()[-1])
    assert {name: verdicts[name] for name in good} == dict.fromkeys(good, "accepted")
    assert [name for name, (_, words) in bad.items() if words not in verdicts[name]] == [], verdicts


@pytest.mark.fate
@pytest.mark.parametrize("kind", ["", "-dataio", "-three"])
def test_the_client_of_fate_1_makes_the_same_job(kind):
    said = judged("venv1", HERE / "judge_v1.py", GOLDEN / f"dsl{kind}.json", GOLDEN / f"conf{kind}.json")
    assert said.stdout.splitlines()[-1:] == ["accepted"], said.stderr[-2000:]


@pytest.mark.fate
def test_the_judge_of_fate_1_can_say_no(tmp_path):
    require_fate()
    bad = json.loads((GOLDEN / "conf.json").read_text())
    bad["component_parameters"]["common"]["homo_lr_0"]["penalty"] = "LX"
    (tmp_path / "conf.json").write_text(json.dumps(bad))
    said = judged("venv1", HERE / "judge_v1.py", GOLDEN / "dsl.json", tmp_path / "conf.json")
    assert said.returncode != 0
    assert "penalty" in said.stderr


def test_the_spec_s_r_task_is_in_the_job_word_for_word():
    parameters = dag(replace(JOB, r=R))["dag"]["tasks"]["haina_r_0"]["parameters"]
    assert json.dumps(parameters) == (
        '{"r_script_url": "http://localhost:8000/run_logistic_regression", "timeout": 300}'
    )


def test_fate_1_has_no_place_for_the_r_task():
    with pytest.raises(ConfigError, match="rservice"):
        dsl(replace(JOB, r=R))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: HomoLr(epochs=0), "epochs is 0"),
        (lambda: HomoLr(learning_rate=0), "learning rate is 0"),
        (lambda: HomoLr(learning_rate=float("nan")), "learning rate"),
        (lambda: HomoLr(alpha=-1), "alpha is -1"),
        (lambda: HomoLr(batch_size=0), "batch_size is 0"),
        (lambda: RTask("localhost:8000"), "r_script_url"),
        (lambda: RTask(R.r_script_url, 0), "timeout is 0"),
        (lambda: RTask(R.r_script_url, format="rds"), "binary or json"),
        (lambda: replace(JOB, hosts=[]), "one site"),
        (lambda: replace(JOB, hosts=[GUEST]), "no site's twice"),
        (lambda: replace(JOB, rows=0), "no rows"),
    ],
)
def test_impossible_jobs_are_refused(make, words):
    with pytest.raises(ConfigError) as refused:
        make()
    assert words in str(refused.value)
