import pytest

from federation import running, sites


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory):
    """SHA-256 of the final model of a federation that nobody disturbs; of each file and its sites once."""
    known = {}

    def of(text, doors):
        if (text, doors) not in known:
            folder = tmp_path_factory.mktemp("undisturbed")
            with running(folder, text, sites(folder, doors)) as federation:
                federation.end()
                federation.check()
                known[text, doors] = federation.ledger.model
        return known[text, doors]

    return of
