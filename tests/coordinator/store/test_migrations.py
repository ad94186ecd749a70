"""A database of an older Haina comes forward with its rows, and goes back when nobody's budget is forgotten by it."""

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from ledgers import budget, charge
from memory import Memory, contribution, federation, model, round_row

from haina.coordinator.store import NodeRow
from haina.coordinator.store.engines import parse
from haina.coordinator.store.rows import written
from haina.coordinator.store.tables import REVISION, metadata


def plain(memory: Memory) -> sa.Engine:
    """An engine of our own."""
    memory.folder.mkdir(parents=True, exist_ok=True)
    return sa.create_engine(
        parse(memory.url) if memory.url else f"sqlite:///{memory.folder}/coordinator.sqlite"
    )


def step(engine: sa.Engine, to: str, how=command.upgrade) -> None:
    config = Config()
    config.set_main_option("script_location", "haina.coordinator.store:migrations")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        how(config, to)


def shape(engine: sa.Engine) -> dict[str, dict[str, str]]:
    metadata = sa.MetaData()
    metadata.reflect(engine)
    return {
        name: {column.name: f"{column.type} {column.nullable}" for column in table.columns}
        for name, table in metadata.tables.items()
    }


def put(engine: sa.Engine, name: str, row: object) -> None:
    """Write a row of today into yesterday's table."""
    table = sa.MetaData()
    table.reflect(engine, only=[name])
    columns = set(table.tables[name].columns.keys())
    values = {key: value for key, value in written(row).items() if key in columns}
    today = metadata.tables[name]
    with engine.begin() as connection:
        connection.execute(sa.insert(today).values({today.c[key]: value for key, value in values.items()}))


ROWS = {
    "federation": federation(),
    "model": model(),
    "round": round_row(),
    "contribution": contribution("a"),
    "node": NodeRow("a", "node", serial=5, examples=7),
}


def test_the_first_tables_come_forward_with_their_rows_and_go_back(memory):
    engine = plain(memory)
    step(engine, "0001")
    first = shape(engine)
    for name, row in ROWS.items():
        put(engine, name, row)
    store = memory.open()
    assert store.federation("iris") == ROWS["federation"]
    assert store.model("iris") == ROWS["model"]
    assert store.current_round("iris") == ROWS["round"]
    assert store.contribution("iris", 1, "a") == ROWS["contribution"]
    assert store.node("a") == ROWS["node"]
    assert store.set_stage("iris", 1, None, {"name": "share"})
    assert store.put_sealed("iris", 1, "share", "a", b"x", 5.0) == "new"
    store.open_budget(budget())
    memory.close()
    step(engine, "0001", command.downgrade)
    assert shape(engine) == first
    store = memory.open()
    assert store.current_round("iris") == ROWS["round"]
    assert store.node("a") == ROWS["node"]
    assert (store.budgets(), store.sealed("iris", 1, "share")) == ([], {})
    engine.dispose()


def test_a_database_goes_back_over_no_charge(memory):
    store = memory.open()
    store.open_budget(budget())
    assert store.reserve([charge("a")]) == {}
    memory.close()
    engine = plain(memory)
    with pytest.raises(RuntimeError, match="holds 1 charges to privacy budgets"):
        step(engine, "0001", command.downgrade)
    with engine.connect() as connection:
        assert connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar_one() == REVISION
    engine.dispose()
    assert [one.id for one in memory.open().charges()] == ["a"]
