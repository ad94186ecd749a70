import pytest
from doors import house


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    with house(tmp_path_factory.mktemp("house")) as home:
        yield home
