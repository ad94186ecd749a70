import random
import threading
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from haina.coordinator.settings import ALL, SettingsService, replay
from haina.coordinator.static import StaticSettings
from haina.coordinator.store.rows import Conflict, SettingRow
from haina.wire.messages import SettingsChange
from haina.wire.refusal import Refusal
from haina.wire.settings import Dynamic


class Clock:
    def __init__(self, now=1000.0):
        self.now = now

    def __call__(self):
        return self.now


class Memory:
    """The log, in memory."""

    def __init__(self, clock):
        self.clock, self.rows, self.lock = clock, [], threading.Lock()
        self.reads = 0

    def append_setting(self, scope, values, *, expect, who, why="", expires=None):
        with self.lock:
            of_scope = max((row.version for row in self.rows if row.scope == scope), default=0)
            if expect is not None and not of_scope <= expect <= len(self.rows):
                return Conflict(of_scope)
            row = SettingRow(len(self.rows) + 1, scope, dict(values), who, self.clock(), why, expires)
            self.rows.append(row)
            return row

    def settings_log(self, last):
        self.reads += 1
        with self.lock:
            return self.rows[-last:]


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture(params=["memory", "sqlite"])
def log(request, clock, tmp_path):
    if request.param == "memory":
        yield Memory(clock)
        return
    from haina.coordinator.store import Store

    store = Store.open(None, tmp_path, clock)
    yield store
    store.close()


@pytest.fixture
def service(log, clock):
    return SettingsService(log, clock)


def put(service, scope="global", who="ada", **values):
    extra = {key: values.pop(key) for key in ("expect", "why", "hours", "dry_run") if key in values}
    return service.change(SettingsChange(scope=scope, values=values, **extra), who)


def refused(code, call, *args, **kwargs):
    with pytest.raises(Refusal) as caught:
        call(*args, **kwargs)
    assert caught.value.code == code
    return str(caught.value)


def test_defaults_at_version_0(service):
    settings = service.effective("n1", "g")
    assert settings.version == 0
    assert settings.values == Dynamic().model_dump()
    assert service.of_rounds() == dict.fromkeys(
        ("deadline", "quorum", "over_selection", "round_every", "keep_models")
    )


def test_scopes(service):
    put(service, threads=1, report_interval="10s", deadline="2m")
    put(service, "group:east", threads=2, paused=True)
    entry = put(service, "node:n1", threads=3)
    assert (entry.version, entry.scope, entry.values, entry.before) == (
        3,
        "node:n1",
        {"threads": 3},
        {"threads": None},
    )
    values = service.effective("n1", "east").values
    assert (values["threads"], values["paused"], values["report_interval"]) == (3, True, 10.0)
    assert service.effective("n1", None).values["paused"] is False
    assert service.effective("n2", "east").values["threads"] == 2
    assert service.effective("n2", "west").values["threads"] == 1
    assert service.effective().values["threads"] == 1
    assert service.of_rounds()["deadline"] == 120.0
    # One number, the newest of the whole log, whoever asks.
    assert {service.effective(node, None).version for node in ("n1", "n2", None)} == {3}
    assert service.shown("group:east")["own"] == {"threads": 2, "paused": True}
    assert service.shown("node:n1", "east")["values"]["paused"] is True
    assert service.shown("node:n1")["version"] == 3
    assert set(service.shown("global")["schema"]["properties"]) == set(Dynamic.model_fields)
    # None takes the scope's own value away.
    entry = put(service, "node:n1", threads=None)
    assert entry.before == {"threads": 3}
    assert service.effective("n1", "east").values["threads"] == 2
    assert service.shown("node:n1")["own"] == {}


def test_what_is_refused_changes_nothing(service):
    put(service, threads=1)
    for key in ("log_level", "http", "grpc", "database", "state"):
        assert f"{key} is static" in refused("static", put, service, **{key: "x"})
        assert key in StaticSettings.model_fields
    assert "Did you mean threads?" in refused("invalid", put, service, thread=2)
    assert "threads is 5000. Allowed: a whole number 0 to 1024" in refused(
        "invalid", put, service, threads=5000
    )
    assert "deadline holds for whole rounds" in refused("invalid", put, service, "node:n1", deadline=9)
    assert "deadline" in refused("invalid", put, service, "group:g", deadline=9)
    assert "names no setting" in refused("invalid", put, service)
    assert "'elsewhere'" in refused("invalid", service.shown, "elsewhere")
    # All or nothing.
    refused("invalid", put, service, threads=2, quorum=-1)
    assert service.effective().version == 1
    assert service.effective().values["threads"] == 1


def test_compare_and_set(service):
    put(service, threads=1, expect=0)
    words = refused("version", put, service, threads=2, expect=0)
    assert "version 0" in words
    assert "version 1 is in force" in words
    refused("version", put, service, threads=2, expect=2)
    refused("version", put, service, threads=2, expect=0, dry_run=True)
    # A change elsewhere moves the one version too.
    put(service, "node:n1", threads=2, expect=1)
    refused("version", put, service, threads=2, expect=1)
    put(service, threads=2, expect=2)
    put(service, threads=3)
    assert service.effective().version == 4


def test_dry_run(service):
    put(service, threads=1)
    entry = put(service, threads=2, paused=True, dry_run=True, hours=1)
    assert (entry.version, entry.values, entry.before) == (
        2,
        {"threads": 2, "paused": True},
        {"threads": 1, "paused": None},
    )
    assert entry.expires == 1000.0 + 3600
    assert service.effective().version == 1
    assert len(service.log(10)) == 1
    refused("static", put, service, log_level="debug", dry_run=True)


def test_log_says_who_when_why_and_what(service, clock):
    put(service, who="ada", why="quiet night", threads=1)
    clock.now = 1500.0
    put(service, who="bob", threads=2)
    put(service, "node:n1", who="bob", threads=9)
    entries = service.log(2)
    assert [entry.version for entry in entries] == [2, 3]
    assert (entries[0].who, entries[0].when, entries[0].before, entries[0].values) == (
        "bob",
        1500.0,
        {"threads": 1},
        {"threads": 2},
    )
    assert service.log(100)[0].why == "quiet night"
    assert service.log(0) == []


def test_an_override_ends_and_gives_back_what_is_beneath_it(service, clock):
    put(service, threads=1)
    put(service, threads=8, report_interval="1m", hours=1, why="a busy hour")
    assert service.next_expiry == clock.now + 3600
    # Permanent changes made meanwhile: of another key, and of one that is overridden.
    put(service, paused=True)
    put(service, report_interval="2m")
    values = service.effective().values
    assert (values["threads"], values["report_interval"], values["paused"]) == (8, 120.0, True)
    assert service.expire() is None
    clock.now += 3600
    # Until it is said, nobody sees another thing under an old version.
    assert (service.effective().version, service.effective().values["threads"]) == (4, 8)
    entry = service.expire()
    assert entry is not None
    assert (entry.version, entry.who, entry.values) == (5, "haina", {})
    assert "version 2" in entry.why
    settings = service.effective()
    assert settings.version == 5
    assert (settings.values["threads"], settings.values["report_interval"], settings.values["paused"]) == (
        1,
        120.0,
        True,
    )
    assert service.expire() is None
    assert service.next_expiry is None


def test_a_change_after_the_end_says_it_too(service, clock):
    put(service, threads=8, hours=1)
    clock.now += 4000
    assert put(service, paused=True).before == {"paused": None}
    assert service.effective().values["threads"] == 0
    assert service.expire() is None


@pytest.mark.parametrize("first", [1, 3])
def test_overrides_of_overrides(service, clock, first):
    put(service, threads=3)
    put(service, threads=5, hours=first)
    put(service, threads=9, hours=4 - first)
    seen = [service.effective().values["threads"]]
    for _ in range(3):
        clock.now += 3601
        service.expire()
        seen.append(service.effective().values["threads"])
    # The newest one wins while it lasts; then what is beneath it and still lasts; then what is permanent.
    assert seen == ([9, 9, 9, 3] if first == 1 else [9, 5, 5, 3])


def test_rollback_is_a_new_version_with_old_content(service, clock):
    put(service, threads=1)
    put(service, "group:g", threads=2)
    put(service, "node:n", threads=3)
    put(service, threads=7, paused=True)
    put(service, "group:g", threads=None)
    entry = service.rollback(2, "ada", "it was better")
    assert (entry.version, entry.scope, entry.values, entry.before, entry.why) == (
        6, ALL, {"version": 2}, {"version": 5}, "it was better"
    )  # fmt: skip
    assert service.shown("global")["own"] == {"threads": 1}
    assert service.shown("group:g")["own"] == {"threads": 2}
    assert service.shown("node:n")["own"] == {}
    # Forward again, and to a roll-back.
    service.rollback(5, "ada")
    assert service.effective("n", "g").values["threads"] == 3
    assert service.effective().values["paused"] is True
    service.rollback(6, "ada")
    assert service.shown("group:g")["own"] == {"threads": 2}
    service.rollback(0, "ada")
    assert service.effective("n", "g").values == Dynamic().model_dump()
    assert service.effective().version == 9
    for version in (-1, 10):
        assert "0 to 9" in refused("not_found", service.rollback, version, "ada")


def test_rollback_does_not_bring_back_what_has_expired(service, clock):
    put(service, threads=1)
    put(service, threads=8, hours=1)
    put(service, threads=2)
    service.rollback(2, "ada")
    assert service.effective().values["threads"] == 8
    clock.now += 3600
    service.expire()
    assert service.effective().values["threads"] == 1
    service.rollback(2, "ada")
    assert service.effective().values["threads"] == 1


def test_a_restart_and_another_replica_see_the_same(log, clock, service):
    put(service, threads=1)
    put(service, "node:n", threads=8, hours=1)
    other = SettingsService(log, clock)
    assert other.effective("n") == service.effective("n")
    put(other, paused=True)
    assert service.effective("n").version == 2
    service.forget()
    assert service.effective("n") == other.effective("n")
    # What version 3 means does not depend on when it is read.
    clock.now += 4000
    assert SettingsService(log, clock).effective("n") == other.effective("n")
    # Both replicas notice the end, and both end up with the same.
    assert sum(replica.expire() is not None for replica in (service, other)) == 1
    service.forget()
    other.forget()
    assert other.effective("n") == service.effective("n")
    assert service.effective("n").values["threads"] == 1
    # A change through a replica that is behind is compared with the log, not with what it remembers.
    put(other, threads=4)
    refused("version", put, service, threads=5, expect=4)


def test_reading_does_not_ask_the_log(clock):
    memory = Memory(clock)
    service = SettingsService(memory, clock)
    put(service, threads=1)
    reads = memory.reads
    for node in range(1000):
        service.effective(f"n{node % 50}", "g")
    assert memory.reads == reads
    assert service.effective("n1", "g") is service.effective("n1", "g")
    service.forget()
    service.effective("n1", "g")
    assert memory.reads == reads + 1


def test_what_was_known_holds_while_the_log_cannot_be_read(clock):
    class Broken(Memory):
        broken = False

        def settings_log(self, last):
            if self.broken:
                raise Refusal("unavailable", "the database is away")
            return super().settings_log(last)

    memory = Broken(clock)
    service = SettingsService(memory, clock)
    put(service, threads=5)
    SettingsService(memory, clock).change(SettingsChange(values={"threads": 6}), "ada")
    memory.broken = True
    service.forget()
    assert service.effective().values["threads"] == 5
    refused("unavailable", put, service, threads=7)
    memory.broken = False
    assert service.effective().values["threads"] == 6


def test_changes_from_many_threads_are_all_there(service):
    def change(number):
        for step in range(5):
            put(service, f"node:n{number}", threads=step)

    threads = [threading.Thread(target=change, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert service.effective().version == 20
    assert [entry.version for entry in service.log(100)] == list(range(1, 21))
    assert all(service.effective(f"n{number}").values["threads"] == 4 for number in range(4))


@hypothesis_settings(max_examples=150)
@given(st.integers(0, 2**32))
def test_any_history_is_what_a_slow_reading_of_it_says(seed):
    # The same rules said another way: for each key, the newest change that names it and has not expired; a roll-back is the log cut short.
    rng, rows = random.Random(seed), []
    for version in range(1, rng.randrange(2, 25)):
        if rng.random() < 0.2:
            row = SettingRow(version, ALL, {"version": rng.randrange(version)}, "x", 0.0)
        else:
            keys = rng.sample(["a", "b", "c"], rng.randrange(1, 3))
            values = {key: rng.choice([None, 1, 2, 3]) for key in keys}
            expires = rng.choice([None, None, 5.0, 15.0])
            row = SettingRow(version, rng.choice(["global", "node:n"]), values, "x", 0.0, "", expires)
        rows.append(row)

    def slow(count, scope, key):
        for row in reversed(rows[:count]):
            if row.scope == ALL:
                return slow(row.values["version"], scope, key)
            if row.scope == scope and key in row.values and (row.expires or 99) > 10:
                return row.values[key]
        return None

    own = replay(rows, 10.0)
    for scope in ("global", "node:n"):
        for key in "abc":
            assert own.get(scope, {}).get(key) == slow(len(rows), scope, key)
    # An entry without content changes nothing.
    bump = SettingRow(len(rows) + 1, "global", {}, "x", 0.0)
    assert {k: v for k, v in replay([*rows, bump], 10.0).items() if v} == {k: v for k, v in own.items() if v}
    assert replay([replace(row, when=3.0) for row in rows], 10.0) == own
