"""Rounds whose updates are only ever seen as sums: the coordinator's stages, with the node's own code in front of it."""

import asyncio
import base64
import sqlite3
from dataclasses import replace

import numpy as np
import pytest
from office import office
from sites import Site, advance, secure, sites

from haina.errors import ConfigError
from haina.node.peers import fingerprint
from haina.node.sealing import Masked
from haina.privacy.budget import Budget
from haina.privacy.secagg import Advert, Answer, Consent, pack, unpack
from haina.wire.messages import Failed, Fate, Sealed
from haina.wire.refusal import Refusal

ALIKE = 'preset = "fedavg"\nweigh = ["uniform"]'
SIX = "nodes = 6\nquorum = 4"
STAGES = ("share", "upload", "consent", "unmask")


def run(work, seconds=60):
    asyncio.run(asyncio.wait_for(work, seconds))


def secured(folder, more="", also="", serve=SIX, **options):
    """An office whose sums of small whole numbers are exact: the grid's step is a power of two."""
    privacy = secure(more=more or "range = 16.0", also=also)
    return office(folder, **{"strategy": ALIKE, "serve": serve, "privacy": privacy, **options})


async def trained(o, folder, names="abcdef", vector=lambda k: [k, 1, -2 * k], **more):
    """Sites that have trained and advertised."""
    some = await sites(o, folder, *names, **more)
    await o.open(1)
    for k, site in enumerate(some):
        assert (await site.train(vector(k))).fate is Fate.ACCEPTED
    return some


async def at(o, stage):
    await o.until(lambda: o.station.view.stage is not None and o.station.view.stage[1] == stage)


def verdicts(row):
    return {client["client"]: client["verdict"] for client in row.record["clients"]}


def reasons(row):
    return {client["client"]: client["reason"] for client in row.record["clients"]}


# ------------------------------------------------------------------------------------------------ what comes of it


def test_the_model_is_the_mean_and_nothing_else_was_seen(tmp_path):
    async def work():
        async with secured(tmp_path) as o:
            some = await trained(o, tmp_path)
            await advance(some, *STAGES)
            row = await o.closed(1)
            assert (row.state, row.reason) == ("closed", "")
            assert o.model().tolist() == [2.5, 1.0, -5.0]
            assert set(verdicts(row).values()) == {"admitted"}
            assert {client["norm"] for client in row.record["clients"]} == {None}
            assert {client["report"]["examples"] for client in row.record["clients"]} == {1.0}
            # Nobody announced how many rows there are.
            assert set(row.roster.values()) == {1}
            assert [o.store.sizes("trial", 1, stage) for stage in ("advertise", *STAGES)] == [{}] * 5
            await o.until(lambda: not list((tmp_path / "spool").iterdir()))
            assert all(site.begun == [1] for site in some)

    run(work())


def test_weights_are_inside_the_sum(tmp_path):
    async def work():
        async with secured(tmp_path, strategy='preset = "fedavg"', also="max_examples = 40") as o:
            some = await sites(o, tmp_path, *"abcdef")
            await o.open(1)
            for k, site in enumerate(some):
                await site.train([float(k), 0, 0], examples=10 * (k + 1))
            await advance(some, *STAGES)
            row = await o.closed(1)
            # More than 40 examples count for 40.
            weights = np.array([10, 20, 30, 40, 40, 40])
            assert o.model()[0] == pytest.approx(float(weights @ np.arange(6)) / weights.sum(), abs=1e-5)
            assert {client["share"] for client in row.record["clients"]} == {None}

    run(work())


def test_who_leaves_between_two_stages_is_not_in_the_sum(tmp_path):
    """One is gone before it shares its keys, one after; their updates are in no sum, and the sum of the others is exact."""

    async def work():
        async with secured(tmp_path) as o:
            some = await trained(o, tmp_path)
            await advance(some[1:], "share")
            await asyncio.sleep(0.05)
            assert o.station.view.stage == (1, "share"), "it waits for who may still come"
            o.clock.now += 31
            await at(o, "upload")
            late = some[0].part
            assert (await some[0].say(late._sealed("share", pack({})))).fate is Fate.REFUSED
            await advance(some[2:], "upload")
            o.clock.now += 31
            await at(o, "consent")
            await advance(some[2:], "consent", "unmask")
            row = await o.closed(1)
            assert row.state == "closed"
            assert o.model().tolist() == [np.mean([2, 3, 4, 5]), 1.0, -2 * np.mean([2, 3, 4, 5])]
            assert verdicts(row) == {"a": "failed", "b": "failed", **dict.fromkeys("cdef", "admitted")}
            assert reasons(row)["a"] == reasons(row)["b"] == "it was ready, and left before its update came"

    run(work())


def test_the_last_answers_are_not_waited_for_when_there_are_shares_enough(tmp_path):
    async def work():
        async with secured(tmp_path) as o:
            some = await trained(o, tmp_path)
            await advance(some, "share", "upload", "consent")
            await at(o, "unmask")
            await advance(some[:3], "unmask")
            await asyncio.sleep(0.1)
            o.station.poke()
            await asyncio.sleep(0.1)
            assert o.store.current_round("trial").state == "open"
            await advance(some[3:4], "unmask")
            await o.closed(1)
            assert o.model().tolist() == [2.5, 1.0, -5.0]

    run(work())


def test_who_says_that_it_goes_no_further_is_not_waited_for(tmp_path):
    async def work():
        async with secured(tmp_path) as o:
            some = await trained(o, tmp_path)
            failed = Failed(federation="trial", round=1, reason="substituted: not the key of b")
            await advance(some[1:], "share")
            await o.core.fail(await some[0].node.caller(), failed)
            await advance(some[1:], "upload")
            declined = {"federation": "trial", "round": 1, "reason": "changed: another set"}
            assert (await some[1].asked()).stage == "consent"
            assert (await some[1].say(Sealed(stage="consent", **declined))).fate is Fate.ACCEPTED
            await advance(some[2:], "consent", "unmask")
            row = await o.closed(1)
            # The first is in no sum; the second's words are, and the others open them.
            assert o.model()[0] == np.mean([1, 2, 3, 4, 5])
            assert reasons(row)["a"] == "substituted: not the key of b"
            lines = {line.action: line for line in await o.core.audit(o.operator, 100)}
            assert lines["node.declined"].subject == "b"
            assert lines["node.declined"].detail["reason"] == "changed: another set"

    run(work())


@pytest.mark.parametrize("stage", ["advertise", *STAGES])
def test_a_round_that_loses_too_many_fails_and_the_next_one_works(tmp_path, stage):
    async def work():
        async with secured(tmp_path, rounds=4) as o:
            some = await sites(o, tmp_path, *"abcdef")
            await o.open(1)
            stays = some if stage != "advertise" else some[:3]
            for site in stays:
                await site.train([1, 1, 1])
            for name in STAGES:
                if stage == "advertise":
                    break
                stays = some[:3] if name == stage else stays
                await at(o, name)
                await advance(stays, name)
                if name == stage:
                    break
            o.clock.now += 601 if stage == "advertise" else 31
            row = await o.closed(1)
            assert row.state == "failed"
            said = {
                "advertise": "3 of the 4 nodes needed were ready",
                "share": "3 shared their keys, and 4 are needed",
                "upload": "3 sent their updates, and 4 are needed",
                "consent": "3 agreed on whose updates came, and 4 are needed",
                "unmask": "could not be opened",
            }
            assert said[stage] in row.reason, row.reason
            assert o.store.federation("trial").version == 0
            o.clock.now += 3
            for site in some:
                await site.hello()
            await o.open(2)
            for site in some:
                await site.train([2, 2, 2])
            await advance(some, *STAGES)
            assert (await o.closed(2)).state == "closed"
            assert o.model().tolist() == [2, 2, 2]

    run(work())


def test_groups_are_summed_apart_and_one_may_be_lost(tmp_path):
    async def work():
        serve = "nodes = 9\nquorum = 5"
        privacy = secure(dropout=0.1, more="range = 16.0, group = 3")
        async with office(tmp_path, strategy=ALIKE, serve=serve, privacy=privacy) as o:
            some = await trained(o, tmp_path, "abcdefghi", vector=lambda k: [k, 0, 0])
            await at(o, "share")
            groups = o.station.view.steps.sums.groups
            assert sorted(len(group.members) for group in groups) == [3, 3, 3]
            lost = groups[0]
            gone = lost.members[0]
            await advance([site for site in some if site.name != gone], "share")
            o.clock.now += 31
            others = [site for site in some if site.name not in lost.members]
            await at(o, "upload")
            assert await some[[site.name for site in some].index(lost.members[1])].asked(wait=0.1) is None
            await advance(others, "upload", "consent", "unmask")
            row = await o.closed(1)
            assert row.state == "closed"
            mean = np.mean(["abcdefghi".index(site.name) for site in others])
            assert o.model()[0] == np.float32(mean)
            assert {name for name, verdict in verdicts(row).items() if verdict == "admitted"} == {
                site.name for site in others
            }
            assert "2 shared their keys, and 3 are needed" in reasons(row)[lost.members[1]]
            assert len({client["evidence"].get("group") for client in row.record["clients"]}) == 3

    run(work())


def test_the_same_seed_gives_other_groups_each_round(tmp_path):
    """Groups follow from the keys of the round, which nobody chooses twice."""

    async def work():
        seen = []
        privacy = secure(dropout=0.1, more="range = 16.0, group = 3")
        async with office(tmp_path, strategy=ALIKE, serve="nodes = 9", privacy=privacy) as o:
            some = await sites(o, tmp_path, *"abcdefghi")
            for number in (1, 2):
                await o.open(number)
                for site in some:
                    await site.train([0, 0, 0])
                await at(o, "share")
                seen.append(o.store.current_round("trial").stage["groups"])
                await advance(some, *STAGES)
                await o.closed(number)
        assert seen[0] != seen[1]

    run(work())


@pytest.mark.parametrize("stage", ["advertise", *STAGES])
def test_a_coordinator_that_starts_again_goes_on_at_every_stage(tmp_path, stage):
    async def before():
        async with secured(tmp_path) as o:
            some = await sites(o, tmp_path, *"abcdef")
            await o.open(1)
            half = {}
            for k, site in enumerate(some):
                if stage != "advertise" or k < 3:
                    await site.train([k, 1, -2 * k])
            for name in STAGES:
                if stage == "advertise":
                    break
                await advance(some if name != stage else some[:3], name)
                half[name] = True
                if name == stage:
                    break
            return some

    async def after(some):
        async with secured(tmp_path) as o:
            for site in some:
                site.office = site.node.office = o
            await o.open(1)
            left = some[3:]
            if stage == "advertise":
                for k, site in enumerate(left, start=3):
                    await site.train([k, 1, -2 * k])
                await advance(some, *STAGES)
            else:
                await advance(left, stage)
                await advance(some, *STAGES[STAGES.index(stage) + 1 :])
            await o.closed(1)
            assert o.model().tolist() == [2.5, 1.0, -5.0]

    run(after(asyncio.run(before())))


# ------------------------------------------------------------------------------------------------ what must not be


def test_an_update_in_the_clear_is_nowhere_at_the_coordinator(tmp_path):
    """Whatever lies in the coordinator's folder at any moment of a round: not one of the vectors, nor the integers that it became."""

    def everything():
        return {
            path: path.read_bytes()
            for path in tmp_path.rglob("*")
            if path.is_file() and "site-" not in str(path)
        }

    async def work():
        rng = np.random.default_rng(3)
        vectors = rng.normal(size=(6, 400)).astype(np.float32)
        async with secured(tmp_path, d=400) as o:
            some = await trained(o, tmp_path, vector=lambda k: vectors[k])
            clear = []
            for vector in vectors:
                terms = o.station.hosted.policy.terms(400, None, 6)
                integers = np.floor(vector / terms.grid.step).astype(np.int64)
                clear += [vector.tobytes(), vector.astype("<f8").tobytes(), integers.astype("<i4").tobytes()]
            needles = [data[4 * k : 4 * k + 12] for data in clear for k in (0, 7, 200)]
            for stage in STAGES:
                await advance(some, stage)
                for path, held in everything().items():
                    assert not any(needle in held for needle in needles), (stage, path)
            await o.closed(1)
            assert np.abs(o.model() - vectors.mean(axis=0)).max() < 1e-6
            for path, held in everything().items():
                assert not any(needle in held for needle in needles), path

    run(work())


async def refused(work, code):
    with pytest.raises(Refusal) as caught:
        await work
    assert caught.value.code == code, caught.value
    return caught.value


def sealed(stage, data=b"", number=1, **more):
    text = base64.b64encode(data).decode() if isinstance(data, bytes) else data
    return Sealed(federation="trial", round=number, stage=stage, data=text, **more)


def test_what_no_correct_member_sends_is_refused_at_the_door(tmp_path):
    async def work():
        async with secured(tmp_path) as o:
            some = await sites(o, tmp_path, *"abcdef")
            a, b = some[:2]
            stranger = Site(o, await o.node("z", examples=0), tmp_path)
            await stranger.hello()
            await o.open(1)
            task = (await a.node.ask()).task
            for site in some[1:]:
                await site.train([1, 1, 1])
            # A key of another, a name of another, a broken signature, bytes that are none, too many of them.
            good = Advert.from_bytes(base64.b64decode(b.part.advertise().data))
            mine = replace(good, name="a", identity=bytes.fromhex(fingerprint(a.key)))
            for data in (good.to_bytes(), mine.to_bytes(), b"", b"\x01", b"x" * 2000, good.to_bytes()[:-1]):
                await refused(a.say(sealed("advertise", data)), "invalid")
            await refused(a.say(sealed("advertise", "AAA")), "invalid")
            assert (await stranger.say(sealed("advertise", good.to_bytes()))).fate is Fate.REFUSED
            await refused(a.say(sealed("share", b"x")), "unavailable")
            await a.train([1, 1, 1], task=task)
            await at(o, "share")
            for data in (b"", pack({}), pack({"b": b"x"}), pack(dict.fromkeys("bcdefz", bytes(88)))):
                await refused(a.say(sealed("share", data)), "invalid")
            await advance(some, "share", "upload")
            await at(o, "consent")
            for data in (b"", bytes(10), Consent(bytes(64), bytes(16 * 4)).to_bytes()):
                await refused(a.say(sealed("consent", data)), "invalid")
            await advance(some, "consent")
            await at(o, "unmask")
            for answer in (Answer({"z": bytes(36)}, {}), Answer({}, {"b": bytes(36)})):
                await refused(a.say(sealed("unmask", answer.to_bytes())), "invalid")
            await refused(a.say(sealed("unmask", b"\x01\x05" + b"\xff" * 40)), "invalid")
            await advance(some, "unmask")
            assert (await o.closed(1)).state == "closed"
            assert o.model().tolist() == [1, 1, 1]

    run(work())


def test_shares_that_are_rubbish_are_found_and_their_sender_is_named(tmp_path):
    """What is sealed cannot be looked into, so a member can spoil the sum that it is in; never its secrecy, and the record says who."""

    async def work():
        async with secured(tmp_path) as o:
            some = await trained(o, tmp_path)
            bad = some[0]
            right = unpack(base64.b64decode(bad.part.answer(await bad.asked()).data))
            assert (
                await bad.say(sealed("share", pack(dict.fromkeys(right, bytes(88)))))
            ).fate is Fate.ACCEPTED
            await advance(some[1:], "share")
            await advance(some, "upload", "consent", "unmask")
            row = await o.closed(1)
            assert row.state == "failed"
            assert "'a'" in row.reason
            assert o.store.federation("trial").version == 0

    run(work())


def test_wrong_shares_in_an_answer_are_stood(tmp_path):
    async def work():
        async with secured(tmp_path) as o:
            some = await trained(o, tmp_path)
            await advance(some, "share", "upload", "consent")
            bad = some[0]
            honest = Answer.from_bytes(base64.b64decode(bad.part.answer(await bad.asked()).data))
            wrong = Answer({name: bytes(36) for name in honest.seeds}, {})
            assert (await bad.say(sealed("unmask", wrong.to_bytes()))).fate is Fate.ACCEPTED
            await advance(some[1:4], "unmask")
            o.station.poke()
            await asyncio.sleep(0.1)
            # As many as are needed, one of them wrong: it waits for another.
            assert o.store.current_round("trial").state == "open"
            await advance(some[4:], "unmask")
            assert (await o.closed(1)).state == "closed"
            assert o.model().tolist() == [2.5, 1.0, -5.0]

    run(work())


def test_a_message_counts_once_and_its_twin_is_a_duplicate(tmp_path):
    async def work():
        async with secured(tmp_path) as o:
            some = await trained(o, tmp_path)
            a = some[0]
            step = await a.asked()
            answer = a.part.answer(step)
            fates = await asyncio.gather(*(a.say(answer) for _ in range(5)))
            assert sorted(ack.fate.value for ack in fates) == ["accepted", *["duplicate"] * 4]
            other = {name: bytes(88) for name in unpack(base64.b64decode(answer.data))}
            assert (await a.say(sealed("share", pack(other)))).fate is Fate.REFUSED
            await advance(some[1:], "share")
            await at(o, "upload")
            # The answer may have been lost.
            assert (await a.say(answer)).fate is Fate.DUPLICATE
            assert (await a.say(sealed("share", pack(other)))).fate is Fate.REFUSED
            await advance(some, "upload", "consent", "unmask")
            await o.closed(1)
            assert o.model().tolist() == [2.5, 1.0, -5.0]
            assert (await a.say(answer)).reason.endswith("is over")

    run(work())


def test_words_are_taken_at_their_stage_and_of_members_only(tmp_path):
    async def work():
        async with secured(tmp_path) as o:
            some = await sites(o, tmp_path, *"abcdef")
            stranger = Site(o, await o.node("z", examples=0), tmp_path)
            await stranger.hello()
            await o.open(1)
            for site in some:
                await site.train([1, 1, 1])
            words = Masked(bytes(12), "masked", 3)
            stranger.part = some[0].part
            await refused(some[0].upload(words), "unavailable")
            await advance(some[:5], "share")
            o.clock.now += 31
            await at(o, "upload")
            assert "not asked" in (await some[5].upload(words)).reason
            assert "not asked" in (await stranger.upload(words)).reason
            await refused(some[0].upload(Masked(bytes(16), "masked", 4)), "invalid")
            await refused(some[0].upload(Masked(bytes(8), "masked", 3)), "invalid")
            await refused(some[0].upload(Masked(bytes(12), "float32", 3)), "invalid")
            await advance(some[:5], "upload")
            await at(o, "consent")
            assert "upload is over" in (await some[5].upload(words)).reason
            await advance(some[:5], "consent", "unmask")
            await o.closed(1)
            assert o.model().tolist() == [1, 1, 1]

    run(work())


def test_an_upload_that_races_the_end_of_its_stage_is_in_the_sum_or_refused(tmp_path):
    """Between the last look and the next stage: what was acknowledged counts."""

    async def work():
        async with secured(tmp_path) as o:
            some = await trained(o, tmp_path)
            await advance(some, "share")
            await advance(some[:5], "upload")
            masked = some[5].part.answer(await some[5].asked())
            o.clock.now += 31
            o.station.poke()
            ack = await some[5].upload(masked)
            await at(o, "consent")
            counted = 6 if ack.fate is Fate.ACCEPTED else 5
            assert len(o.station.view.steps.sums.groups[0].uploaders) == counted
            await advance(some[:counted], "consent", "unmask")
            row = await o.closed(1)
            assert [client["verdict"] for client in row.record["clients"]].count("admitted") == counted

    run(work())


def test_a_site_keeps_its_key_on_its_coordinator(tmp_path):
    async def work():
        async with secured(tmp_path) as o:
            (a,) = await sites(o, tmp_path, "a")
            error = await refused(a.hello(identity="00" * 32), "conflict")
            assert fingerprint(a.key) in error.allowed
            assert (await o.core.nodes(o.operator))[0].identity == fingerprint(a.key)

    run(work())


def test_two_sites_with_one_key_are_one_site(tmp_path):
    async def work():
        async with secured(tmp_path) as o:
            some = await sites(o, tmp_path, *"abcde")
            twin = Site(o, await o.node("f", examples=1), tmp_path)
            twin.key = some[0].key
            await twin.hello()
            await o.open(1)
            for site in (*some, twin):
                await site.train([1, 1, 1])
            await advance(some, *STAGES)
            row = await o.closed(1)
            assert row.state == "closed"
            assert verdicts(row)["f"] == "failed"

    run(work())


def test_an_update_in_the_clear_is_not_taken(tmp_path):
    async def work():
        async with secured(tmp_path) as o:
            some = await sites(o, tmp_path, *"abcdef")
            await o.open(1)
            task = (await some[0].node.ask()).task
            assert task.codec == "masked"
            await refused(some[0].node.send(task, [1, 2, 3], codec="float32"), "invalid")

    run(work())


def test_a_node_that_does_not_know_secure_sums_is_told_at_its_hello(tmp_path):
    async def work():
        async with secured(tmp_path) as o:
            with pytest.raises(Refusal, match="writes updates as float32, raw") as caught:
                await o.node("a", codecs=("float32", "raw"))
            assert caught.value.allowed == "masked"

    run(work())


# ------------------------------------------------------------------------------------------------ what it costs

CENTRAL = '[privacy]\nnoise = "central"\nclip = 1.0\n{}\nbudget = {{ epsilon = 8.0, delta = 1e-5{} }}'
NOISE = 'noise = "distributed"\nmechanism = { discrete_gaussian = { noise_multiplier = 2.0 } }\nclip = 1.0\n'


def test_rounds_are_charged_until_nothing_is_left_and_then_training_stops(tmp_path):
    async def work():
        # One round costs rho = 1 / (2 * 4); two fit, a third does not.
        also = NOISE + "budget = { epsilon = 3.9, delta = 1e-5 }\n"
        async with secured(tmp_path, also=also, more=" ", rounds=50) as o:
            affordable = o.station.hosted.policy.affordable
            assert affordable == 2
            some = await sites(o, tmp_path, *"abcdef")
            for number in (1, 2):
                await o.open(number)
                charges = o.store.charges(federation="trial")
                assert len(charges) == 6 * number
                assert {c.state for c in charges if c.round == number} == {"reserved"}
                for site in some:
                    await site.train([0.1, 0, 0])
                stays = some if number == 1 else some[1:]
                await advance(stays, "share")
                if number == 2:
                    o.clock.now += 31
                await advance(stays, "upload", "consent", "unmask")
                await o.closed(number)
                states = {c.owner: c.state for c in o.store.charges(federation="trial") if c.round == number}
                assert states == {
                    "a": "released" if number == 1 else "void",
                    **dict.fromkeys("bcdef", "released"),
                }
            # One can still pay, and that is too few.
            await o.until(lambda: o.store.federation("trial").state == "finished")
            assert o.store.federation("trial").reason.startswith("the privacy budget is spent")
            assert o.store.federation("trial").closed == 2
            budgets = {budget.owner: budget for budget in await o.core.budgets(o.operator)}
            assert budgets["a"].spent_rho == pytest.approx(0.125, rel=0.1)
            assert budgets["b"].spent_rho == pytest.approx(2 * budgets["a"].spent_rho)
            assert budgets["b"].spent_epsilon <= 3.9
            mine = await o.core.charges(o.operator, "a", 10)
            assert [(c.round, c.state) for c in mine] == [(1, "released"), (2, "void")]
            assert (await o.core.federations(o.operator))[0].promises

    run(work())


def test_a_round_that_fails_after_updates_came_has_cost_their_owners(tmp_path):
    async def work():
        also = NOISE + "budget = { epsilon = 8.0, delta = 1e-5 }\n"
        async with secured(tmp_path, also=also, more=" ") as o:
            some = await trained(o, tmp_path, vector=lambda k: [0, 0, 0])
            await advance(some, "share")
            await advance(some[:3], "upload")
            o.clock.now += 31
            assert (await o.closed(1)).state == "failed"
            states = {charge.owner: charge.state for charge in o.store.charges(federation="trial")}
            assert states == dict.fromkeys("abc", "released") | dict.fromkeys("def", "void")

    run(work())


def test_central_noise_covers_what_the_coordinator_sees(tmp_path):
    async def work():
        privacy = CENTRAL.format("mechanism = { gaussian = { noise_multiplier = 2.0 } }", "")
        strategy = 'preset = "fedavg"\nweigh = ["uniform"]'
        async with office(
            tmp_path, d=2000, rounds=1, privacy=privacy, strategy=strategy, serve="nodes = 4"
        ) as o:
            nodes = await o.nodes(*"abcd")
            await o.open(1)
            for node in nodes:
                task = (await node.ask()).task
                assert task.limit == 1.0
                await node.send(task, np.zeros(2000))
            assert (await o.closed(1)).state == "closed"
            # z C / n on every coordinate.
            assert o.model().std() == pytest.approx(2.0 / 4, rel=0.1)
            assert {charge.state for charge in o.store.charges()} == {"released"}

    run(work())


def test_a_schedule_is_one_charge_for_all_its_rounds(tmp_path):
    async def work():
        privacy = CENTRAL.format("", ', composition = "pld"')
        strategy = 'preset = "fedavg"\nweigh = ["uniform"]'
        async with office(tmp_path, rounds=2, privacy=privacy, strategy=strategy) as o:
            nodes = await o.nodes("a", "b")
            for number in (1, 2):
                await o.open(number)
                for node in nodes:
                    await node.send((await node.ask()).task, [0, 0, 0])
                assert (await o.closed(number)).state == "closed"
            charges = o.store.charges()
            assert [(charge.owner, charge.state) for charge in charges] == [
                ("a", "reserved"),
                ("b", "reserved"),
            ]
            assert all(7.5 < charge.epsilon <= 8.0 for charge in charges)

    run(work())


def test_a_budget_on_larger_terms_is_no_leave_to_take_more_than_is_promised(tmp_path):
    async def work():
        privacy = CENTRAL.format("mechanism = { laplace = { epsilon = 4.0 } }", "").replace(
            "delta = 1e-5", ""
        )
        privacy = privacy.replace("8.0, ", '8.0, composition = "pure"')
        async with office(tmp_path, rounds=9, privacy=privacy, strategy=ALIKE) as o:
            for name in "ab":
                o.store.open_budget(Budget(name, "", 100.0, 0.0, "pure"))
            nodes = await o.nodes("a", "b")
            for number in (1, 2):
                await o.open(number)
                for node in nodes:
                    await node.send((await node.ask()).task, [0, 0, 0])
                assert (await o.closed(number)).state == "closed"
            await o.until(lambda: o.store.federation("trial").state == "finished")
            assert o.store.federation("trial").closed == 2
            assert o.store.federation("trial").reason.startswith("the privacy budget is spent")
            assert {account.spent.epsilon for account in o.store.budgets()} == {8.0}

    run(work())


def test_a_round_without_a_model_gives_central_charges_back(tmp_path):
    """What noise covers there is the model; the updates went to the coordinator alone."""

    async def work():
        privacy = CENTRAL.format("mechanism = { gaussian = { noise_multiplier = 2.0 } }", "")
        async with office(
            tmp_path, rounds=3, privacy=privacy, strategy=ALIKE, serve="nodes = 4\nquorum = 4"
        ) as o:
            nodes = await o.nodes(*"abcd")
            await o.open(1)
            for node in nodes[:3]:
                await node.send((await node.ask()).task, [0, 0, 0])
            o.clock.now += 1000
            assert (await o.closed(1)).state == "failed"
            assert {charge.state for charge in o.store.charges()} == {"void"}
            assert {float(account.totals["*"].rho) for account in o.store.budgets()} == {0.0}

    run(work())


def test_correlated_noise_covers_sums_and_what_it_covered_once_is_not_taken_back(tmp_path):
    async def work():
        privacy = CENTRAL.format("correlated = { separation = 2, participations = 2 }", "")
        privacy += "\nmechanism = { gaussian = { noise_multiplier = 2.0 } }"
        async with office(
            tmp_path,
            d=2000,
            rounds=4,
            privacy=privacy,
            strategy=ALIKE,
            serve="nodes = 2",
            train="clients_per_round = 2",
        ) as o:
            nodes = {node.name: node for node in await o.nodes(*"abcd")}
            rosters, spread = [], []
            for number in (1, 2):
                await o.open(number)
                rosters.append(set(o.store.round("trial", number).roster))
                for name in rosters[-1]:
                    await nodes[name].send((await nodes[name].ask()).task, np.zeros(2000))
                assert (await o.closed(number)).state == "closed"
                spread.append(o.model().std())
                for node in nodes.values():
                    await node.hello()
            # Whoever took part rests.
            assert not rosters[0] & rosters[1]
            policy = o.station.hosted.policy
            first = policy.mechanism.std(1.0) * policy.correlated.sensitivity / 2
            assert spread[0] == pytest.approx(first, rel=0.1)
            # Noise of its own in each round would have spread the model by a factor of 1.41.
            assert spread[1] < 1.3 * spread[0]
            with pytest.raises(Refusal, match="hangs together"):
                await o.core.rollback(o.operator, "trial", 1, "")

    run(work())


def test_who_may_be_late_cannot_be_charged(tmp_path):
    async def work():
        privacy = CENTRAL.format("", "")
        serve = "nodes = 2\nmax_staleness = 2"
        with pytest.raises(ConfigError, match="charges a round to those who are invited"):
            async with office(
                tmp_path, privacy=privacy, serve=serve, strategy='preset = "fedavg"\nweigh = ["uniform"]'
            ):
                pass

    run(work())


def test_the_store_says_where_a_round_stands(tmp_path):
    async def work():
        async with secured(tmp_path) as o:
            await trained(o, tmp_path)
            await at(o, "share")
            (federation,) = await o.core.federations(o.operator)
            assert federation.round.stage == "share"
            with sqlite3.connect(tmp_path / "coordinator.sqlite") as db:
                ((text,),) = db.execute("SELECT stage FROM round").fetchall()
            db.close()
            assert '"share"' in text

    run(work())


def test_a_round_to_which_chance_invites_nobody_goes_by(tmp_path):
    """Each client is drawn by itself: however many they are, a round has its own number of them, and its quorum is of those."""

    async def work():
        strategy = 'preset = "fedavg"\nweigh = ["uniform"]\nselect = { poisson = { rate = 0.4 } }'
        async with office(tmp_path, rounds=12, strategy=strategy, serve="nodes = 3") as o:
            nodes = {node.name: node for node in await o.nodes("a", "b", "c")}
            invited = []
            for number in range(1, 13):
                o.clock.now += 100
                for node in nodes.values():
                    await node.hello()
                await o.until(lambda n=number: o.store.round("trial", n) is not None)
                roster = o.store.round("trial", number).roster
                invited.append(len(roster))
                if not roster:
                    row = await o.closed(number)
                    assert (row.state, row.reason) == ("failed", "nobody was drawn for it")
                    continue
                await o.open(number)
                for name, node in nodes.items():
                    if name not in roster:
                        assert (await node.ask(wait=0)).task is None
                for name in roster:
                    await nodes[name].send((await nodes[name].ask()).task, [1, 1, 1])
                assert (await o.closed(number)).state == "closed"
            assert {0, 1, 2} <= set(invited)
            assert o.model()[0] == sum(count > 0 for count in invited)

    run(work())


def test_what_cannot_be_summed_is_refused_when_it_is_hosted(tmp_path):
    from office import FILE

    from haina.coordinator.blobs import FolderBlobs
    from haina.coordinator.host import host
    from haina.coordinator.store import Store

    said = {
        "nodes = 2": "a secure sum of 2 members",
        "nodes = 7": "no secure sum of 7 members stands 3 drop-outs",
    }
    store = Store.open(None, tmp_path, lambda: 1.7e9)
    for serve, words in said.items():
        dropout = 0.45 if "7" in serve else 0.1
        file = FILE.format(d=3, rounds=1, train="", strategy=ALIKE, serve=serve) + secure(dropout=dropout)
        (tmp_path / "federation.toml").write_text(file.replace("trial", f"trial-{serve[-1]}"))
        with pytest.raises(ConfigError, match=words):
            host(tmp_path / "federation.toml", store, FolderBlobs(tmp_path / "blobs"), lambda: 1.7e9)
    store.close()
