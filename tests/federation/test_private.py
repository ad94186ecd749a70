"""`[privacy]` in a federation file: what it becomes, what it does in a simulation, and what cannot be had."""

import hashlib

import numpy as np
import pytest

from haina.artifact import sha256
from haina.errors import ConfigError, HainaError
from haina.federation import Federation
from haina.federation.runner import play
from haina.federation.workers import Workers
from haina.privacy.mechanisms import Gaussian, Laplace
from haina.privacy.secagg.rehearsal import secure_sum
from haina.privacy.secagg.setting import Terms
from haina.simulation.rundir import RunDir
from haina.strategy.parts import Cover, Seen
from haina.strategy.record import Outcome, Verdict
from haina.strategy.strategy import SPENT

BASE = """
name = "private"

[model]
learner = "jax"
kind = "logistic"

[data]
source = "sklearn:iris"
partition = {{iid = {{clients = {clients}}}}}
held = {held}

[train]
rounds = {rounds}
epochs = 2
batch_size = 8
learning_rate = 0.1
{train}

[strategy]
weigh = ["uniform"]
{strategy}

[privacy]
{privacy}
"""


def federation(privacy, *, clients=12, rounds=3, held=0, train="", strategy="", more=""):
    text = BASE.format(
        privacy=privacy, clients=clients, rounds=rounds, held=held, train=train, strategy=strategy
    )
    return Federation.of(text + more)


def simulated(one, rounds=None):
    simulation = one.simulation()
    run, records = simulation.start(), []
    while run.round < (rounds or simulation.rounds) and not run.finished:
        run, record = simulation.advance(run)
        records.append(record)
    return run, records


DISTRIBUTED = (
    'noise = "distributed"\nclip = 0.5\nsecure_aggregation = true\nbudget = {epsilon = 8.0, delta = 1e-3}'
)


def test_the_file_becomes_a_policy_and_a_strategy():
    one = federation(DISTRIBUTED)
    assert one.strategy.seen is Seen.SUM
    assert one.strategy.cover is Cover.CLIENT
    assert one.strategy.clip.max_norm == 0.5
    assert isinstance(one.privacy.mechanism, Gaussian)
    assert one.privacy.affordable == 3
    grouped = federation("secure_aggregation = {group = 4}")
    assert grouped.strategy.seen is Seen.GROUPS
    assert grouped.privacy.hidden.group == 4
    assert federation("secure_aggregation = true", strategy="").privacy.most is None
    weighted = Federation.of(federation("secure_aggregation = true").text.replace('"uniform"', '"samples"'))
    assert weighted.privacy.most == 1000.0


@pytest.mark.parametrize(
    ("said", "kind", "strength"),
    [
        ("mechanism = {gaussian = 1.5}\nbudget = {epsilon = 8.0, delta = 1e-3}", Gaussian, 1.5),
        ("mechanism = {laplace = {epsilon = 0.5}}\nbudget = {epsilon = 8.0}", Laplace, 0.5),
        ('mechanism = "laplace"\nbudget = {epsilon = 6.0}', Laplace, 2.0),
        (
            'mechanism = "gaussian"\nbudget = {epsilon = 8.0, delta = 1e-3, composition = "pld"}',
            Gaussian,
            None,
        ),
    ],
)
def test_noise_is_given_or_made_from_the_budget(said, kind, strength):
    policy = federation(f'noise = "central"\nclip = 1.0\n{said}').privacy
    assert isinstance(policy.mechanism, kind)
    if strength is not None:
        assert next(iter(vars(policy.mechanism).values())) == pytest.approx(strength)
    if strength != 1.5 and strength != 0.5:
        assert policy.affordable == 3
        assert policy.spent(3) == pytest.approx(policy.allowance.epsilon, rel=2e-2)


def test_a_hidden_sum_without_noise_gives_the_model_of_the_plain_mean():
    hidden, _ = simulated(federation("secure_aggregation = true"))
    text = federation("secure_aggregation = true").text
    plain, _ = simulated(Federation.of(text[: text.index("[privacy]")]))
    np.testing.assert_allclose(hidden.model, plain.model, atol=2e-6)


def test_real_masks_give_the_same_sum_to_the_last_bit():
    one = federation(DISTRIBUTED)
    policy, simulation = one.privacy, one.simulation()
    turn = simulation.turn(simulation.start())
    results = list(simulation.train(turn))
    words = {
        result.client: policy.seal(
            result.vector, 1.0, 0.5, len(results), simulation.veil._stream(turn, result.client)
        )
        for result in results
    }
    plain = sum(words.values(), start=np.zeros_like(next(iter(words.values()))))
    counter = iter(range(10**9))

    def entropy(size):
        return b"".join(
            hashlib.sha256(next(counter).to_bytes(8, "big")).digest() for _ in range(-(-size // 32))
        )[:size]

    terms = Terms(federation="private", round=1, task="0" * 64, length=len(plain))
    masked = secure_sum(words, terms, entropy)
    assert set(masked.uploaders) == set(words)
    np.testing.assert_array_equal(masked.words, plain)


def test_training_stops_when_the_budget_is_spent(tmp_path):
    one = federation(
        'noise = "central"\nclip = 0.5\nmechanism = {laplace = {epsilon = 1.0}}\nbudget = {epsilon = 2.0}',
        rounds=9,
    )
    records = list(play(one, RunDir(tmp_path)))
    assert len(records) == 2
    assert [record.notes["epsilon"] for record in records] == [1.0, 2.0]
    assert records[-1].decisions["budget"].startswith("spent")
    assert "Laplace noise (epsilon 1)" in records[-1].decisions["privacy"]
    # Going on with it spends nothing more.
    assert list(play(one, RunDir(tmp_path), resume=True)) == []


def test_a_client_that_has_spent_its_budget_is_not_invited_again():
    one = federation(
        'noise = "central"\nclip = 0.5\nmechanism = {laplace = {epsilon = 1.0}}\nbudget = {epsilon = 2.0}',
        rounds=30,
        train="clients_per_round = 5",
    )
    run, records = simulated(one)
    assert run.finished
    spent = run.state.members.get(SPENT, [f"client-{k:03}" for k in range(12)])
    assert spent.max() == 2.0
    assert sum(spent) == sum(
        client.verdict is not Verdict.ABSENT for record in records for client in record.clients
    )


@pytest.mark.parametrize(
    "privacy",
    [
        DISTRIBUTED,
        'noise = "central"\nclip = {adaptive = {start = 0.5}}\nbudget = {epsilon = 8.0, delta = 1e-3}',
        'noise = "local"\nclip = 0.5\nbudget = {epsilon = 50.0, delta = 1e-3}',
        "secure_aggregation = {group = 4}",
        'noise = "central"\nclip = 0.5\nsecure_aggregation = true\nmechanism = {laplace = {epsilon = 1.0}}',
    ],
)
def test_the_same_seed_gives_the_same_bytes_on_any_number_of_workers(privacy):
    one = federation(privacy, rounds=2)
    alone, records = simulated(one)
    assert all(record.outcome is Outcome.STEPPED for record in records)
    simulation = one.simulation()
    run = simulation.start()
    with Workers(one, 2) as workers:
        while run.round < 2:
            run, _ = simulation.advance(run, workers.train)
    assert sha256(run.model.tobytes()) == sha256(alone.model.tobytes())


def test_noise_is_not_used_twice():
    one = federation('noise = "central"\nclip = 0.5\nmechanism = {gaussian = 50.0}', rounds=4)
    run = one.simulation().start()
    increments = []
    for _ in range(4):
        before = run.model
        run, _ = one.simulation().advance(run)
        increments.append(run.model - before)
    cosines = np.corrcoef(increments)
    assert np.abs(cosines[np.triu_indices(4, 1)]).max() < 0.9


def test_groups_with_a_robust_rule_stand_a_liar():
    attack = "\n[simulation]\nattack = {sign_flip = {fraction = 0.08}}\n"
    plain = federation("secure_aggregation = true", clients=24, rounds=8, more=attack)
    groups = federation(
        "secure_aggregation = {group = 3}",
        clients=24,
        rounds=8,
        strategy='combine = "geometric_median"',
        more=attack,
    )
    accuracy = [simulated(one)[1][-1].metrics["loss"] for one in (plain, groups)]
    assert accuracy[1] < accuracy[0]
    record = simulated(groups)[1][-1]
    assert {client.evidence["group"] for client in record.clients} == set(map(float, range(1, 9)))


def test_too_few_for_a_sum_are_told_so():
    _, records = simulated(federation("secure_aggregation = true", clients=2), rounds=1)
    assert records[0].outcome is Outcome.KEPT
    assert "too few clients" in records[0].clients[0].reason


@pytest.mark.parametrize(
    ("privacy", "more", "key", "way"),
    [
        ("", {}, "privacy.noise", "secure_aggregation = true"),
        ('noise = "central"', {}, "privacy.clip", "clip = 1.0"),
        ('noise = "distributed"\nclip = 1.0', {}, "privacy.noise", "local"),
        ('noise = "local"\nclip = 1.0\nsecure_aggregation = true', {}, "privacy.noise", "distributed"),
        ("clip = 1.0\nbudget = {epsilon = 1.0}", {}, "privacy.budget", "central"),
        ('noise = "central"\nclip = 1.0', {}, "privacy.mechanism", "budget"),
        ('noise = "central"\nclip = 1.0\nbudget = {epsilon = 1.0}', {}, "privacy.mechanism", "laplace"),
        ('noise = "central"\nclip = 1.0\nmechanism = {laplac = 1.0}', {}, "privacy.mechanism", "laplace"),
        (
            'noise = "local"\nclip = {adaptive = {start = 1.0}}\nbudget = {epsilon = 1.0, delta = 1e-3}',
            {},
            "privacy.clip",
            "central",
        ),
        ("secure_aggregation = {group = 2}", {}, "privacy.secure_aggregation.group", ""),
        (
            "secure_aggregation = true",
            {"more": "\n[serve]\nmax_staleness = 3\n"},
            "privacy.secure_aggregation",
            "max_staleness",
        ),
        ("secure_aggregation = true", {"strategy": "trust = {}"}, "privacy", "group = 10"),
        ("secure_aggregation = true", {"strategy": 'combine = "krum"'}, "privacy", "group = 10"),
        (
            'noise = "central"\nclip = 1.0\nbudget = {epsilon = 1.0, delta = 1e-3}',
            {"strategy": "trust = {}"},
            "privacy",
            "local",
        ),
        (
            'noise = "central"\nclip = 1.0\nbudget = {epsilon = 1.0, delta = 1e-3}',
            {"strategy": "clip = {fixed = 2.0}"},
            "privacy.clip",
            "Leave",
        ),
        (
            'noise = "central"\nclip = 1.0\nbudget = {epsilon = 1.0, delta = 1e-3}',
            {"train": "clip_update = 1.0\nnoise = 0.1"},
            "privacy.noise",
            "[train]",
        ),
        ('unit = "example"\nclip = 1.0\nbudget = {epsilon = 1.0, delta = 1e-3}', {}, "privacy.unit", "torch"),
        ('noise = "nowhere"', {}, "privacy.noise", ""),
        (
            'noise = "central"\nclip = 1.0\nmechanism = {gaussian = 0.1}\nbudget = {epsilon = 1.0, delta = 1e-5}',
            {},
            "privacy.budget",
            "pays for no round",
        ),
        (
            'noise = "central"\nclip = 1.0\nmechanism = {laplace = 5.0}\nbudget = {epsilon = 1.0, composition = "pure"}',
            {},
            "privacy.budget",
            "one round costs epsilon 5.",
        ),
        (
            'noise = "central"\nclip = 1.0\nmechanism = {laplace = 0.1}\nbudget = {epsilon = 8.0, composition = "pure"}',
            {"more": '\n[serve]\ncodecs = ["int8"]\n'},
            "privacy.mechanism",
            "float32",
        ),
    ],
)
def test_what_cannot_hold_together_is_refused_with_the_way_out(privacy, more, key, way):
    with pytest.raises(HainaError) as refused:
        assert federation(privacy, **more).privacy
    assert isinstance(refused.value, ConfigError)
    assert str(refused.value).startswith(f"federation.toml: {key}")
    assert way in str(refused.value)


def test_exact_statistics_are_hidden_but_never_covered():
    text = """
name = "fit"
[model]
learner = "glm"
family = "gaussian"
[data]
source = "sklearn:diabetes"
partition = {iid = {clients = 5}}
[train]
rounds = 25
[privacy]
secure_aggregation = true
"""
    hidden, _ = simulated(Federation.of(text))
    plain, _ = simulated(Federation.of(text[: text.index("[privacy]")]))
    assert hidden.finished
    np.testing.assert_allclose(hidden.model, plain.model, rtol=1e-8, atol=1e-8)
    with pytest.raises(ConfigError, match="exact statistics have no limit"):
        assert Federation.of(text + 'noise = "central"\nclip = 1.0\n').privacy


def test_correlated_noise_leaves_more_of_the_model_to_clients_that_come_seldom():
    said = 'noise = "central"\nclip = 0.3\nbudget = {epsilon = 4.0, delta = 1e-3}'
    rare = "correlated = {separation = 6, participations = 4}"
    one = federation(f"{said}\n{rare}", clients=60, rounds=24, train="clients_per_round = 10")
    assert one.privacy.correlated.gain > 1.5
    assert one.privacy.spent(24) == pytest.approx(4.0, rel=1e-3)
    run, records = simulated(one)
    counts = run.state.members.get("delivered", [f"client-{k:03}" for k in range(60)])
    assert counts.max() <= 4
    met = {}
    for record in records:
        for client in record.clients:
            assert record.round - met.get(client.client, -6) >= 6
            met[client.client] = record.round
    again, _ = simulated(one)
    assert sha256(again.model.tobytes()) == sha256(run.model.tobytes())


def test_the_noise_of_a_round_takes_back_a_part_of_the_last_ones():
    privacy = 'noise = "central"\nclip = 0.3\nbudget = {epsilon = 4.0, delta = 1e-3}\ncorrelated = {separation = 6, participations = 4}'
    one = federation(privacy, clients=60, rounds=24, train="clients_per_round = 10")
    # Nothing is learnt, so that a round's increment is its noise.
    still = Federation.of(one.text.replace("learning_rate = 0.1", "learning_rate = 1e-9"))
    simulation = still.simulation()
    run, noise = simulation.start(), []
    for _ in range(24):
        before = run.model
        run, _ = simulation.advance(run)
        noise.append(run.model.astype(float) - before)
    noise = np.array(noise)
    of_its_own = still.privacy.mechanism.std(1.0) * still.privacy.correlated.sensitivity * 0.3 / 10
    assert np.std(noise[0]) == pytest.approx(of_its_own, rel=0.5)
    assert np.corrcoef(noise[:-1].ravel(), noise[1:].ravel())[0, 1] < -0.2
    # The model has less of it than 24 draws of its own would leave.
    assert np.std(run.model) < 0.8 * np.sqrt(24) * of_its_own


@pytest.mark.parametrize(
    ("change", "way"),
    [
        ({"train": ""}, "clients_per_round"),
        ({"privacy": 'noise = "local"'}, "central"),
        ({"privacy": "clip = {adaptive = {start = 1.0}}"}, "clip = 1.0"),
    ],
)
def test_what_correlated_noise_cannot_have(change, way):
    said = {"noise": 'noise = "central"', "clip": "clip = 0.3"}
    said |= {change.get("privacy", "x").partition(" ")[0]: change["privacy"]} if "privacy" in change else {}
    text = "\n".join(
        [v for k, v in said.items()]
        + ["budget = {epsilon = 4.0, delta = 1e-3}", "correlated = {separation = 3, participations = 2}"]
    )
    with pytest.raises(ConfigError) as refused:
        assert federation(text, train=change.get("train", "clients_per_round = 3")).privacy
    assert way in str(refused.value)


ROWS = """
name = "rows"
[model]
learner = "torch"
kind = "logistic"
[data]
source = "sklearn:iris"
partition = {iid = {clients = 3}}
[train]
rounds = 2
batch_size = 16
learning_rate = 0.5
[privacy]
unit = "example"
clip = 1.0
mechanism = {gaussian = 1.1}
budget = {epsilon = 50.0, delta = 1e-5}
"""


@pytest.mark.torch
def test_single_rows_are_protected_in_local_training():
    one = Federation.of(ROWS)
    assert (one.training.example_clip, one.training.example_noise) == (1.0, 1.1)
    assert one.strategy.cover is Cover.NONE
    task = one.task(
        one.strategy.instructions(one.strategy.init(np.zeros(1))), version=0, model="0" * 64, bytes=0
    )
    assert (task.example_clip, task.example_noise) == (1.0, 1.1)
    run, records = simulated(one)
    assert records[-1].outcome is Outcome.STEPPED
    again, _ = simulated(Federation.of(ROWS))
    np.testing.assert_array_equal(run.model, again.model)
    assert "Each row" in " ".join(one.privacy.promises)
    with pytest.raises(ConfigError, match="how strong"):
        assert Federation.of(ROWS.replace("{gaussian = 1.1}", '"gaussian"')).privacy


def test_a_site_trains_as_the_file_promises_and_not_as_it_is_told():
    one = federation('noise = "central"\nclip = 0.5\nmechanism = {gaussian = 50.0}')
    instructions = one.strategy.instructions(one.strategy.init(np.zeros(3, np.float32)))
    fields = {"version": 0, "model": "0" * 64, "bytes": 1}
    task = one.task(instructions, **fields).model_copy(update={"limit": instructions.limit})
    assert one.departure(task) is None
    slower = {"learning_rate": 0.01, "seconds": 5.0, "codec": "int8", "round": 3}
    assert one.departure(task.model_copy(update=slower)) is None
    for change in (
        {"limit": 0.25},
        {"limit": None},
        {"epochs": 3},
        {"steps": 100_000},
        {"batch_size": 1},
        {"example_noise": 0.1},
        {"measure": ("loss_before",)},
        {"seed": 5},
        {"proximal": 0.5},
        {"federation": "other"},
    ):
        (name,) = change
        assert f"{name} is {change[name]}, and the federation file says" in one.departure(
            task.model_copy(update=change)
        )


def test_no_privacy_is_claimed_of_sampling_that_can_be_seen():
    privacy = 'noise = "central"\nclip = 0.5\nbudget = {epsilon = 8.0, delta = 1e-3, composition = "pld"}'
    seldom = federation(privacy, rounds=20, strategy="select = {poisson = {rate = 0.05}}")
    always = federation(privacy, rounds=20)
    assert seldom.privacy.mechanism == always.privacy.mechanism
    assert seldom.privacy.claim(20, 1e-3) == always.privacy.claim(20, 1e-3) > 6.0
