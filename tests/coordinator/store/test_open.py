import os
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from memory import Clock, Memory, federation, model
from postgres import free_port

from haina.coordinator.store import Store, StoreError, tables


def engine(store):
    return store.database.engine


def test_an_empty_database_gets_the_tables_that_the_code_means(memory):
    store = memory.open()

    def ours(thing, name, kind, reflected, other):
        return not (kind == "table" and not memory.url and name in tables.POSTGRESQL_ONLY)

    with engine(store).connect() as connection:
        context = MigrationContext.configure(connection, opts={"include_object": ours, "compare_type": True})
        assert compare_metadata(context, tables.metadata) == []
        assert context.get_current_revision() == tables.REVISION


def test_the_steps_from_the_first_lead_to_the_same_tables(memory):
    store = memory.open()
    metadata = sa.MetaData()
    with engine(store).begin() as connection:
        metadata.reflect(connection)
        metadata.drop_all(connection)
        config = Config()
        config.set_main_option("script_location", "haina.coordinator.store:migrations")
        config.attributes["connection"] = connection
        command.upgrade(config, "head")

    def ours(thing, name, kind, reflected, other):
        return not (kind == "table" and not memory.url and name in tables.POSTGRESQL_ONLY)

    with engine(store).connect() as connection:
        context = MigrationContext.configure(connection, opts={"include_object": ours, "compare_type": True})
        assert compare_metadata(context, tables.metadata) == []
        assert context.get_current_revision() == tables.REVISION


def test_the_revision_that_is_compared_is_the_newest_step():
    config = Config()
    config.set_main_option("script_location", "haina.coordinator.store:migrations")
    assert ScriptDirectory.from_config(config).get_heads() == [tables.REVISION]


def test_what_was_written_is_there_after_opening_again(memory):
    memory.open().put_federation(federation(), model())
    memory.close()
    assert memory.open().federation("iris") == federation()
    assert memory.open().model("iris") == model()


def test_opening_a_database_of_this_version_needs_no_alembic(memory):
    memory.open()
    memory.close()
    look = (
        "import sys, time; from pathlib import Path; from haina.coordinator.store import Store\n"
        f"store = Store.open({memory.url!r}, Path({str(memory.folder)!r}), time.time); store.ping(); store.close()\n"
        "print([name for name in sys.modules if name.split('.')[0] in ('alembic', 'pandas', 'jax', 'torch', 'scipy')])"
    )
    told = subprocess.run(
        [sys.executable, "-c", look], capture_output=True, text=True, check=True, timeout=60
    )
    assert told.stdout.strip() == "[]"


def test_a_newer_database_is_refused_in_words_and_left_as_it_is(memory):
    store = memory.open()
    with engine(store).begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    memory.close()
    with pytest.raises(StoreError, match=r"newer Haina.*9999.*Upgrade Haina"):
        memory.open()
    with pytest.raises(StoreError, match="newer Haina"):
        memory.open()


def test_a_step_that_fails_half_way_leaves_nothing_behind(memory):
    store = memory.open()
    with engine(store).begin() as connection:
        tables.metadata.drop_all(
            connection, tables=[t for t in tables.metadata.sorted_tables if t is not tables.setting]
        )
        connection.exec_driver_sql("DROP TABLE alembic_version")
    memory.close()
    with pytest.raises(StoreError, match=r"cannot be opened.*setting"):
        memory.open()
    plain = sa.create_engine(
        memory.url.replace("postgresql:", "postgresql+psycopg:")
        if memory.url
        else f"sqlite:///{memory.folder}/coordinator.sqlite"
    )
    assert sa.inspect(plain).get_table_names() == ["setting"]
    with plain.begin() as connection:
        connection.exec_driver_sql("DROP TABLE setting")
    plain.dispose()
    assert memory.open().federations() == []


def test_three_replicas_that_start_at_once_on_an_empty_database(postgres, tmp_path):
    url = postgres.empty()
    with ThreadPoolExecutor(3) as pool:
        stores = list(pool.map(lambda n: Store.open(url, tmp_path / str(n), Clock()), range(3)))
    stores[0].put_federation(federation(), model())
    assert [store.federation("iris") for store in stores] == [federation()] * 3
    for store in stores:
        store.close()


def test_one_process_has_a_folder_with_sqlite(tmp_path):
    memory = Memory(None, tmp_path)
    memory.open()
    with pytest.raises(
        StoreError, match=rf"another coordinator \(process {os.getpid()}\).*PostgreSQL.*Stop the other"
    ):
        Store.open(None, tmp_path, Clock())
    script = (
        "import time; from pathlib import Path; from haina.coordinator.store import Store\n"
        f"Store.open(None, Path({str(tmp_path)!r}), time.time)"
    )
    child = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert child.returncode == 1
    assert "another coordinator" in child.stderr
    memory.close()
    assert memory.open().federations() == []
    memory.close()


def test_sqlite_is_set_to_lose_nothing_and_to_be_read_by_its_owner_only(tmp_path):
    memory = Memory(None, tmp_path / "state")
    store = memory.open()
    with engine(store).connect() as connection:
        told = {
            p: connection.exec_driver_sql(f"PRAGMA {p}").scalar()
            for p in ("journal_mode", "synchronous", "foreign_keys")
        }
    assert told == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1}
    store.add_audit("me", "look")
    assert stat.S_IMODE(memory.folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in memory.folder.iterdir()} == {0o600}
    memory.close()


@pytest.mark.parametrize(
    "url", ["sqlite:///x", "mysql://me:hush@host/db", "hush", "postgresql://me:hush@host:port/db", ""]
)
def test_an_address_that_cannot_be_used_is_refused_without_repeating_it(url, tmp_path):
    with pytest.raises(StoreError, match="postgresql://USER") as caught:
        Store.open(url, tmp_path, Clock())
    assert "hush" not in str(caught.value).replace("'hush'", "")


def test_a_server_that_is_not_there(tmp_path):
    with pytest.raises(StoreError, match=r"cannot be opened \(.*refused") as caught:
        Store.open(f"postgresql://me:hush@127.0.0.1:{free_port()}/db", tmp_path, Clock(), patience=0.3)
    assert "hush" not in str(caught.value)


def test_text_that_a_database_would_refuse_is_kept_as_well_as_it_can_be(store):
    store.add_audit("me", "say", "a\0b\ud800c", {"text": "a\0b\ud800c", "number": float("inf")})
    (row,) = store.audit(0, 10)
    assert row.subject == "a\ufffdb\ufffd\ufffd\ufffdc" or row.subject.startswith("a\ufffdb\ufffd")
    assert row.detail == {"text": "a\0b\ud800c", "number": float("inf")}
