import pytest
from pooled_in_r import live, stored


@pytest.fixture(scope="session")
def r_now(tmp_path_factory):
    return live(tmp_path_factory.mktemp("r"))


@pytest.fixture(params=["stored", "live"])
def in_r(request):
    """R's answers: those that are stored, and those that R gives now."""
    return stored() if request.param == "stored" else request.getfixturevalue("r_now")
