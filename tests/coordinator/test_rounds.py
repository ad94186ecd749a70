import asyncio

import numpy as np
import pytest
from office import office

from haina.wire.messages import Failed, Fate
from haina.wire.refusal import Refusal


def run(work):
    asyncio.run(asyncio.wait_for(work, 30))


def test_a_round_is_the_mean_of_what_came(tmp_path):
    async def work():
        async with office(tmp_path) as o:
            a, b = await o.node("a", 10), await o.node("b", 30)
            task = (await a.ask()).task
            assert (task.round, task.version, task.codec) == (1, 0, "float32")
            assert (await a.send(task, [1, 2, 3])).fate is Fate.ACCEPTED
            assert (await a.ask(wait=0)).task is None
            assert (await b.send((await b.ask()).task, [5, 6, 7], examples=30)).fate is Fate.ACCEPTED
            row = await o.closed(1)
            assert row.state == "closed"
            # Shares are capped at 2/K = 1, so they are those of the examples: 1/4 and 3/4.
            assert o.model() == pytest.approx([4, 5, 6])
            assert [c["client"] for c in row.record["clients"]] == ["a", "b"]
            assert row.record["model"] == o.store.model("trial").sha256
            assert row.record["parent"] == o.store.model("trial", 0).sha256
            assert (await a.ask()).task.version == 1

    run(work())


def test_nothing_opens_before_enough_nodes_are_there(tmp_path):
    async def work():
        async with office(tmp_path, serve="nodes = 3") as o:
            a, _ = await o.nodes("a", "b")
            event = await a.ask(wait=0.2)
            assert event.task is None
            await o.node("c", examples=0)
            assert (await a.ask(wait=0.2)).task is None
            await o.node("d")
            assert (await a.ask()).task is not None

    run(work())


def test_the_federation_ends_after_its_rounds(tmp_path):
    async def work():
        async with office(tmp_path, rounds=2) as o:
            nodes = await o.nodes("a", "b")
            for number in (1, 2):
                for node in nodes:
                    await node.send((await node.ask()).task, [1, 1, 1])
                await o.closed(number)
            assert (await nodes[0].ask()).finished
            assert o.model() == pytest.approx([2, 2, 2])
            assert [m.version for m in o.store.models("trial")] == [0, 1, 2]

    run(work())


def test_at_the_deadline_a_quorum_suffices(tmp_path):
    async def work():
        serve = 'nodes = 3\nquorum = 0.6\ndeadline = "60s"'
        async with office(tmp_path, serve=serve) as o:
            a, b, c = await o.nodes("a", "b", "c")
            tasks = [(await node.ask()).task for node in (a, b, c)]
            await a.send(tasks[0], [1, 1, 1])
            await b.send(tasks[1], [3, 3, 3])
            await asyncio.sleep(0.05)
            assert o.store.round("trial", 1).state == "open"
            o.clock.now += 61
            row = await o.closed(1)
            assert row.state == "closed"
            assert o.model() == pytest.approx([2, 2, 2])
            assert row.record["clients"][2]["verdict"] == "absent"
            late = await c.send(tasks[2], [9, 9, 9])
            assert late.fate is Fate.REFUSED
            assert late.reason.startswith(("round 1 is over", "round 1 is closing"))

    run(work())


def test_without_a_quorum_the_round_fails_and_the_model_stays(tmp_path):
    async def work():
        async with office(tmp_path) as o:
            a, b = await o.nodes("a", "b")
            await a.send((await a.ask()).task, [1, 1, 1])
            o.clock.now += 61
            row = await o.closed(1)
            assert row.state == "failed"
            assert "1 of the 2 updates" in row.reason
            assert o.store.federation("trial").version == 0
            await a.hello()
            await b.hello()
            assert (await a.ask(wait=0.1)).task is None, "a rest after a failed round"
            o.clock.now += 3
            await o.open(2)
            task = (await a.ask()).task
            assert (task.round, task.version) == (2, 0)

    run(work())


def test_a_failure_is_an_answer_and_says_why(tmp_path):
    async def work():
        async with office(tmp_path, serve='nodes = 2\nquorum = 1\ndeadline = "60s"') as o:
            a, b = await o.nodes("a", "b")
            await a.send((await a.ask()).task, [1, 1, 1])
            task = (await b.ask()).task
            failed = Failed(
                federation="trial", round=task.round, reason="out of memory", where="task.py:3 fit"
            )
            assert (await o.core.fail(await b.caller(), failed)).fate is Fate.ACCEPTED
            row = await o.closed(1)
            assert row.record["clients"][1]["verdict"] == "failed"
            assert row.record["clients"][1]["reason"] == "out of memory"
            assert o.store.contribution("trial", 1, "b").where == "task.py:3 fit"
            assert o.model() == pytest.approx([1, 1, 1])

    run(work())


def test_with_over_selection_the_first_suffice(tmp_path):
    async def work():
        serve = 'nodes = 4\nover_selection = 2.0\ndeadline = "60s"'
        async with office(tmp_path, train="clients_per_round = 2", serve=serve) as o:
            nodes = await o.nodes("a", "b", "c", "d")
            await o.open(1)
            assert len(o.station.view.row.roster) == 4
            tasks = [(await node.ask()).task for node in nodes]
            await nodes[3].send(tasks[3], [1, 1, 1])
            await nodes[1].send(tasks[1], [3, 3, 3])
            await o.closed(1)
            assert o.model() == pytest.approx([2, 2, 2])

    run(work())


def test_sampling_draws_the_same_clients_for_the_same_seed(tmp_path):
    async def work(folder):
        async with office(folder, train="clients_per_round = 3", serve="nodes = 8") as o:
            await o.nodes(*"abcdefgh")
            await o.open(1)
            return list(o.station.view.row.roster)

    first, second = (asyncio.run(work(tmp_path / name)) for name in ("x", "y"))
    assert first == second
    assert len(first) == 3


def test_duplicates_are_harmless_and_other_bytes_are_refused(tmp_path):
    async def work():
        async with office(tmp_path) as o:
            a, b = await o.nodes("a", "b")
            task = (await a.ask()).task
            parcel = a.parcel(task, [1, 1, 1])
            fates = await asyncio.gather(*(a.deliver(*parcel) for _ in range(5)), return_exceptions=True)
            kinds = sorted(f.fate.value if not isinstance(f, Exception) else f.code for f in fates)
            assert kinds.count("accepted") == 1
            assert set(kinds) <= {"accepted", "duplicate", "conflict"}
            assert (await a.deliver(*parcel)).fate is Fate.DUPLICATE
            assert (await a.send(task, [2, 2, 2])).fate is Fate.REFUSED
            await b.send((await b.ask()).task, [3, 3, 3])
            await o.closed(1)
            assert o.model() == pytest.approx([2, 2, 2])
            # Also when the round is over: the node may never have heard the answer.
            assert (await a.deliver(*parcel)).fate is Fate.DUPLICATE

    run(work())


def test_late_updates_count_in_the_open_round_and_less(tmp_path):
    async def work():
        serve = 'nodes = 3\nquorum = 2\ndeadline = "60s"\nmax_staleness = 2\ndiscount = 1.0'
        async with office(tmp_path, serve=serve, strategy='preset = "fedavg"\ncap = "none"') as o:
            a, b, c = await o.nodes("a", "b", "c")
            late = (await c.ask()).task
            for node in (a, b):
                await node.send((await node.ask()).task, [0, 0, 0])
            o.clock.now += 61
            await o.closed(1)
            for node in (a, b, c):
                await node.hello()
            await o.open(2)
            assert (await c.send(late, [5, 5, 5])).fate is Fate.ACCEPTED
            assert o.store.contribution("trial", 1, "c").counted_in == 2
            assert o.store.contribution("trial", 1, "c").staleness == 1
            assert (await c.ask(wait=0)).task is None, "it has answered round 2 by being late in round 1"
            for node in (a, b):
                await node.send((await node.ask()).task, [0, 0, 0])
            row = await o.closed(2)
            # 1 / (1 + 1)^1 = 1/2 beside 1 and 1.
            assert o.model() == pytest.approx([1, 1, 1])
            assert {entry["client"] for entry in row.record["clients"]} == {"a", "b", "c"}

    run(work())


def test_buffered_every_k_updates_make_a_version(tmp_path):
    async def work():
        serve = 'nodes = 1\nmode = "buffered"\nbuffer = 2'
        async with office(tmp_path, rounds=3, serve=serve, strategy='preset = "fedavg"\ncap = "none"') as o:
            a, b, c = await o.nodes("a", "b", "c")
            tasks = {node.name: (await node.ask()).task for node in (a, b, c)}
            assert {task.round for task in tasks.values()} == {1}
            await a.send(tasks["a"], [1, 1, 1])
            assert (await a.ask(wait=0)).task is None, "one update of a node in each version"
            await b.send(tasks["b"], [1, 1, 1])
            await o.closed(1)
            assert o.model() == pytest.approx([1, 1, 1])
            await o.open(2)
            assert (await c.send(tasks["c"], [4, 4, 4])).fate is Fate.ACCEPTED
            fresh = (await a.ask()).task
            assert fresh.version == 1
            await a.send(fresh, [1, 1, 1])
            await o.closed(2)
            stale = 1 / np.sqrt(2)
            assert o.model() == pytest.approx(1 + (1 + 4 * stale) / (1 + stale))

    run(work())


def test_rounds_by_schedule_open_when_their_time_has_come(tmp_path):
    async def work():
        serve = 'nodes = 2\nevery = "5m"\ndeadline = "60s"'
        async with office(tmp_path, serve=serve) as o:
            nodes = await o.nodes("a", "b")
            for node in nodes:
                await node.send((await node.ask()).task, [1, 1, 1])
            await o.closed(1)
            o.clock.now += 200
            for node in nodes:
                await node.hello()
            assert (await nodes[0].ask(wait=0.1)).task is None
            o.clock.now += 101
            await o.open(2)

    run(work())


def test_pause_start_and_stop(tmp_path):
    async def work():
        async with office(tmp_path) as o:
            await o.core.command(o.operator, "trial", "pause", "holiday")
            a, _ = await o.nodes("a", "b")
            event = await a.ask(wait=0.2)
            assert event.task is None
            await o.core.command(o.operator, "trial", "start", "")
            await o.open(1)
            assert (await a.ask()).task is not None
            info = await o.core.command(o.operator, "trial", "stop", "enough")
            assert info.state == "stopped"
            assert (await a.ask()).finished
            lines = await o.core.audit(o.operator, 100)
            assert [line.action for line in lines if line.action.startswith("federation.")] == [
                "federation.pause",
                "federation.start",
                "federation.stop",
            ]

    run(work())


def test_a_roll_back_is_a_new_version_with_old_bytes(tmp_path):
    async def work():
        async with office(tmp_path, rounds=5) as o:
            nodes = await o.nodes("a", "b")
            for number in (1, 2):
                for node in nodes:
                    await node.send((await node.ask()).task, [1, 1, 1])
                await o.closed(number)
            await o.open(3)
            o.clock.now += 61
            await o.core.command(o.operator, "trial", "pause", "")
            await o.until(lambda: o.store.federation("trial").closed >= 3)
            info = await o.core.rollback(o.operator, "trial", 1, "version 2 was wrong")
            assert (info.version, info.parent) == (3, 1)
            assert o.model() == pytest.approx([1, 1, 1])
            for node in nodes:
                await node.hello()
            await o.core.command(o.operator, "trial", "start", "")
            o.clock.now += 3
            await o.open(4)
            task = (await nodes[0].ask()).task
            assert task.version == 3
            for node in nodes:
                await node.send((await node.ask()).task, [1, 1, 1])
            await o.closed(4)
            assert o.model() == pytest.approx([2, 2, 2])

    run(work())


def test_old_models_lose_their_bytes_and_keep_their_rows(tmp_path):
    async def work():
        async with office(tmp_path, rounds=6, serve="nodes = 2\nkeep_models = 2") as o:
            nodes = await o.nodes("a", "b")
            for number in range(1, 5):
                for node in nodes:
                    await node.send((await node.ask()).task, [number, 1, 1])
                await o.closed(number)
            await o.until(lambda: sum(m.kept for m in o.store.models("trial")) == 2)
            assert [m.version for m in o.store.models("trial")] == [0, 1, 2, 3, 4]
            with pytest.raises(Refusal, match="keeps no version 1"):
                await o.core.rollback(o.operator, "trial", 1, "")

    run(work())


def test_a_coordinator_that_starts_again_goes_on(tmp_path):
    async def first():
        async with office(tmp_path) as o:
            a, b = await o.nodes("a", "b")
            await a.send((await a.ask()).task, [1, 1, 1])
            return a, b, (await b.ask()).task

    async def second(a, b, task):
        async with office(tmp_path) as o:
            a.office = b.office = o
            await o.open(1)
            assert (await a.ask(wait=0)).task is None
            assert (await b.ask()).task.round == 1
            await b.send(task, [3, 3, 3])
            await o.closed(1)
            assert o.model() == pytest.approx([2, 2, 2])

    a, b, task = asyncio.run(first())
    run(second(a, b, task))


def test_every_codec_comes_to_the_same_model_within_its_precision(tmp_path):
    async def work():
        serve = 'nodes = 2\ncodecs = ["float32", "bf16", "int8"]'
        async with office(tmp_path, d=5000, serve=serve) as o:
            rng = np.random.default_rng(0)
            vectors = rng.normal(size=(2, 5000)).astype(np.float32)
            a = await o.node("a", codecs=("bf16",))
            b = await o.node("b", codecs=("int8", "unknown"))
            for node, vector, codec in ((a, vectors[0], "bf16"), (b, vectors[1], "int8")):
                task = (await node.ask()).task
                assert task.codec == codec
                assert (await node.send(task, vector)).fate is Fate.ACCEPTED
            await o.closed(1)
            assert np.abs(o.model() - vectors.mean(axis=0)).max() < 0.03

    run(work())
