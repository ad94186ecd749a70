import pytest
from doors import house


@pytest.fixture
def home(tmp_path):
    with house(tmp_path) as home:
        yield home


@pytest.fixture(params=["http", "grpc"])
def door(request):
    return request.param


@pytest.fixture
def link(home, door):
    link = home.link(door)
    yield link
    link.close()
