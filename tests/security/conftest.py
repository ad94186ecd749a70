import logging

import pytest
from fortress import Fortress


@pytest.fixture(scope="session")
def fort(tmp_path_factory):
    fortress = Fortress(tmp_path_factory.mktemp("fortress"))
    yield fortress
    fortress.close()


@pytest.fixture(params=["http", "grpc"])
def door(request):
    return request.param


@pytest.fixture(autouse=True)
def quiet(request, caplog):
    """Whatever a test did: nothing that is secret is in the log, and no bug showed."""
    caplog.set_level(logging.DEBUG)
    yield
    bugs = [
        r for r in caplog.records if r.name.startswith("haina") and (r.exc_info or r.levelno >= logging.ERROR)
    ]
    assert not bugs, caplog.text
    fortress = request.node.funcargs.get("fort")
    for secret in ("PRIVATE KEY", "-----BEGIN", *(fortress.tokens if fortress else ())):
        assert secret not in caplog.text
