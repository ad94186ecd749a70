import pytest
from memory import Memory
from postgres import running


@pytest.fixture(scope="session")
def postgres():
    """One PostgreSQL server for all tests that do not kill it."""
    with running() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def memory(request, tmp_path):
    """An empty database of either kind; every test that takes it holds on both."""
    url = None if request.param == "sqlite" else request.getfixturevalue("postgres").empty()
    memory = Memory(url, tmp_path / "state")
    yield memory
    memory.close()


@pytest.fixture
def store(memory):
    return memory.open()
