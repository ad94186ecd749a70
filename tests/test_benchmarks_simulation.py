import json
import sys
from pathlib import Path

import numpy as np
import pytest

from haina.federation import Federation
from haina.federation.runner import play
from haina.learners.learner import Training, client_rng
from haina.learners.plan import batches
from haina.simulation.rundir import RunDir

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks" / "simulation_peers"))

from prepare import WORKLOADS, prepare, sweep  # noqa: E402
from tables import BEGIN, END, Row, bars, page, row_of, table  # noqa: E402
from workload import Replay, Workload  # noqa: E402

SMALL = Workload("logistic", (5,), 3, (), clients=20, cohort=4, batch=3, epochs=2, rate=0.1, seed=3)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("workload")
    return folder, prepare(SMALL, folder, 2, "jax")


@pytest.fixture(scope="module")
def played(made):
    folder, _ = made
    federation, kept = Federation.read(folder / "federation.toml"), RunDir(folder / "run")
    rounds = play(federation, kept)
    records = [next(rounds) for _ in range(2)]
    rounds.close()
    return records, federation.learner.from_bytes(kept.model())


def softmax(z):
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def federated_averaging(replay, rounds):
    """In float64 and in full: the mean by samples of what softmax regression learns from the batches of the schedule."""
    model, shape = replay.initial.astype(np.float64), (SMALL.outputs, SMALL.features[0])
    for number in range(1, rounds + 1):
        total = np.zeros_like(model)
        for place, client in enumerate(replay.cohort(number)):
            x, y = replay.x[replay.rows(client)].astype(np.float64), replay.y[replay.rows(client)]
            own = model.copy()
            weight, bias = own[:-3].reshape(shape), own[-3:]
            for rows in replay.batches(number, place):
                error = softmax(x[rows] @ weight.T + bias) - np.eye(3)[y[rows]]
                weight -= SMALL.rate * error.T @ x[rows] / len(rows)
                bias -= SMALL.rate * error.mean(axis=0)
            total += replay.size(client) * own
        model = total / sum(replay.size(client) for client in replay.cohort(number))
    return model


def test_the_folder_holds_every_clients_rows_and_the_first_model(made):
    folder, _ = made
    replay = Replay(folder)
    assert replay.workload == SMALL
    assert replay.x.shape == (200, 5)
    assert replay.offsets.tolist() == list(range(0, 201, 10))
    assert set(np.unique(replay.y)) == {0, 1, 2}
    assert not replay.initial.any()
    assert replay.samples(1) == 4 * 10 * 2


def test_the_schedule_names_whom_a_run_invites(made, played):
    records, _ = played
    for names, record in zip(made[1], records, strict=True):
        assert sorted(client.client for client in record.clients) == sorted(names)


def test_replayed_batches_are_those_of_the_learner(made):
    folder, names = made
    replay = Replay(folder)
    training = Training(epochs=SMALL.epochs, batch_size=SMALL.batch)
    for number in (1, 2):
        for place, name in enumerate(names[number - 1]):
            rows, lengths = batches(10, training, client_rng(SMALL.seed, number, name))
            wanted = [row[:length].tolist() for row, length in zip(rows, lengths, strict=True)]
            assert [batch.tolist() for batch in replay.batches(number, place)] == wanted


def test_a_run_learns_what_the_schedule_says(made, played):
    _, model = played
    wanted = federated_averaging(Replay(made[0]), 2)
    assert np.abs(wanted).max() > 0.01
    np.testing.assert_allclose(model, wanted, atol=1e-6)


def test_more_rounds_leave_rows_and_earlier_rounds_as_they_are(tmp_path):
    first = prepare(SMALL, tmp_path, 1, "jax")
    before = (tmp_path / "clients" / "x.npy").stat()
    longer = prepare(SMALL, tmp_path, 3, "jax")
    assert longer[:1] == first
    assert len(longer) == 3
    assert (tmp_path / "clients" / "x.npy").stat().st_mtime_ns == before.st_mtime_ns


def test_rows_of_another_workload_are_made_anew(tmp_path):
    prepare(SMALL, tmp_path, 1, "jax")
    prepare(sweep(30), tmp_path, 1, "jax")
    assert Replay(tmp_path).x.shape == (300, 10)


def test_evaluation_reads_the_same_rows_and_test_rows(made):
    folder, _ = made
    federation = Federation.read(folder / "evaluated.toml")
    assert len(federation.data.test[1]) == 200
    assert Federation.read(folder / "federation.toml").data.test[1].size == 0


def test_operations_are_those_of_both_passes_but_the_gradient_of_the_rows():
    layers = [784 * 200, 200 * 200, 200 * 10]
    assert WORKLOADS["w2"].flops(10) == 10 * 2 * (3 * sum(layers) - layers[0])
    convolutions = [28 * 28 * 25 * 32, 14 * 14 * 25 * 32 * 64, 3136 * 512, 512 * 62]
    assert WORKLOADS["w3"].flops(1) == 2 * (3 * sum(convolutions) - convolutions[0])


def run(cpu, wall=(1.0, 1.0), **further):
    return {"cpu": [99.0, *cpu], "wall": [99.0, *wall], "first": 2.0, "peak": 100.0, **further}


def test_a_row_is_the_mean_of_the_measured_rounds_of_each_repeat():
    row = row_of("w1", "haina", [run([1.0, 3.0], difference=1e-7), run([4.0, 4.0], difference=3e-7)])
    assert list(row.cpu) == [2.0, 4.0]
    assert row.difference == 3e-7
    assert row.json()["cpu"] == {"median": 3.0, "min": 2.0, "max": 4.0}
    assert "3 (2-4)" in table([row])


def test_a_run_that_failed_is_told_and_not_counted():
    row = row_of("w2", "nvflare", [{"failed": "no end after 5 s"}, run([2.0])])
    assert list(row.cpu) == [2.0]
    assert row.failed
    lost = row_of("w2", "nvflare", [{"failed": "no end after 5 s"}])
    assert "failed: no end after 5 s" in table([lost])
    assert lost.json()["cpu"] is None


def test_bars_compare_medians_and_leave_out_what_was_not_measured():
    rows = [
        row_of("w1", "haina", [run([0.1], difference=2e-5)]),
        row_of("w1", "flower", [run([2.6]), run([2.7]), run([9.0])]),
        row_of("w2", "haina", [run([0.3], wall=[0.34])]),
        row_of("w2", "haina, 2 workers", [run([0.4], wall=[0.2])]),
        row_of("w0-1000", "haina", [run([0.01])]),
        row_of("w0-1000000", "haina", [run([0.02])]),
        row_of("w0-100000", "flower", [run([2.1])]),
    ]
    found = bars(rows, growth=19.0)
    assert found["w1: times less CPU than flower"] == {
        "value": pytest.approx(27.0),
        "bar": 27.0,
        "holds": found["w1: times less CPU than flower"]["value"] >= 27.0,
    }
    assert not any("pfl" in name for name in found)
    verdicts = {name: each["holds"] for name, each in found.items()}
    assert verdicts["w2: rounds a second, two workers over one"]
    assert verdicts["w0: times less CPU, a million registered, than flower with a hundred thousand"]
    assert not verdicts["w0: CPU with a million registered over that with a thousand"]
    assert verdicts["w1: MB grown from round 10 to round 100"]
    assert not verdicts["w1: largest difference of a weight"]
    assert verdicts["w1: seconds to the end of the first round"]


def result(cpu):
    row = row_of("w1", "haina", [run([cpu]), run([cpu])])
    return {
        "date": "2026-01-01",
        "machine": {
            "processor": "P",
            "cores": 2,
            "memory_gb": 8,
            "system": "Linux",
            "python": "3.11",
        },
        "load": {"min": 0.1, "max": 0.4},
        "versions": {"haina": "0"},
        "settings": {"rounds": 1, "repeats": 2},
        "bars": bars([row]),
        "rows": [row.json(), Row("w1", "pfl", failed="it said nothing").json()],
    }


def test_the_page_is_written_again_with_the_last_result_only():
    text = f"before\n{BEGIN}\nNot measured yet.\n{END}\nafter\n"
    once = page(text, json.loads(json.dumps(result(0.25))))
    assert once.startswith("before\n")
    assert once.endswith("after\n")
    assert "| w1 | haina | 0.25 (0.25-0.25) |" in once
    assert "failed: it said nothing" in once
    assert "Not measured" not in once
    assert page(once, result(0.5)) == page(text, result(0.5))


@pytest.mark.parametrize("text", ["nothing", f"{END} {BEGIN}", BEGIN])
def test_a_page_without_a_place_for_results_is_refused(text):
    with pytest.raises(ValueError, match="no place"):
        page(text, result(0.5))


def test_the_document_has_a_place_for_results():
    text = (ROOT / "docs" / "simulation-benchmarks.md").read_text(encoding="utf-8")
    assert text.count(BEGIN) == text.count(END) == 1
    assert page(text, result(0.5)) != text
