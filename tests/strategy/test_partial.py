import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rounds import EVERY, updates_of

from haina.artifact import dump, load, sha256
from haina.errors import LayoutError, RoundError
from haina.report import Report
from haina.strategy.combine import Sum
from haina.strategy.partial import Partial
from haina.strategy.parts import Needs
from haina.strategy.presets import PRESETS
from haina.strategy.server import Newton
from haina.strategy.strategy import Strategy
from haina.strategy.sums import Sums
from haina.strategy.weigh import Uniform, Weigh
from haina.update import Failure, Update

D = 5
FOLDING = {name: strategy for name, strategy in EVERY.items() if strategy.needs < Needs.VECTORS}
#: Seven that can be used, one that cannot, one that failed, one that stays away.
CROWD = updates_of(8, n=10)
RESULTS = [
    *CROWD[:6],
    replace(CROWD[6], vector=1e6 * CROWD[6].vector),
    replace(CROWD[7], vector=np.full(D, np.nan, np.float32)),
    Failure(CROWD[8].client, "it has no examples"),
]


def opened(strategy):
    model = np.random.default_rng(9).normal(size=D).astype(np.float32)
    return strategy.open(strategy.init(model), model, {u.client: u.report for u in CROWD})


def hear(round, results):
    for result in results:
        round.fail(result) if isinstance(result, Failure) else round.add(result)
    return round


def ending(round):
    closed = round.close()
    arrays = {"model": closed.model, **{f"state/{n}": a for n, a in closed.state.to_arrays().items()}}
    return sha256(dump(arrays)), json.dumps(closed.record.to_json())


@given(
    st.sampled_from(sorted(FOLDING)),
    st.permutations(range(9)),
    st.lists(st.integers(0, 3), min_size=9, max_size=9),
    st.booleans(),
)
def test_however_many_fold_it_is_as_if_one_had(name, order, share, saved):
    strategy = FOLDING[name]
    alone = hear(opened(strategy), RESULTS)
    closer = hear(opened(strategy), [RESULTS[i] for i in order if share[i] == 0])
    for replica in (3, 1, 2):
        partial = hear(opened(strategy), [RESULTS[i] for i in order if share[i] == replica]).partial()
        closer.merge(Partial.from_bytes(partial.to_bytes()) if saved else partial)
    assert closer.partial().to_bytes() == alone.partial().to_bytes()
    assert ending(closer) == ending(alone)


def test_statistics_of_all_sizes_are_the_same_bits_in_any_order_and_grouping():
    strategy = Strategy(weigh=Weigh((Uniform(),)), combine=Sum(), server=Newton("gaussian", True, ("a", "b")))
    rng, model = np.random.default_rng(0), np.zeros(2)
    updates = []
    for k in range(12):
        x = np.column_stack([np.ones(50), rng.normal(size=50) * 10.0 ** rng.integers(-3, 8)])
        y = rng.normal(size=50) * 1e-3
        sums = Sums(x.T @ y, x.T @ x, float(y @ y), 50.0, float(y.sum()), 0.0)
        updates.append(Update(str(k), sums.pack(), Report(50)))
    roster = {u.client: u.report for u in updates}

    def start():
        return strategy.open(strategy.init(model), model, roster, dimension=Sums.size(2))

    there, back, half = start(), start(), start()
    hear(there, updates)
    hear(back, updates[:5:-1])
    back.merge(hear(half, updates[:6]).partial())
    assert there.partial().to_bytes() == back.partial().to_bytes()
    assert ending(there) == ending(back)


def test_a_client_in_two_partials_is_refused_and_changes_nothing():
    strategy = PRESETS["scaffold"]()
    closer = hear(opened(strategy), CROWD[:3])
    before = closer.partial().to_bytes()
    for results in (CROWD[2:5], [replace(CROWD[0], vector=np.full(D, np.inf, np.float32))]):
        with pytest.raises(RoundError, match="was heard already, so it would count twice"):
            closer.merge(hear(opened(strategy), results).partial())
    with pytest.raises(RoundError, match="'client-0' was heard already"):
        closer.merge(closer.partial())
    assert closer.partial().to_bytes() == before


def test_partials_of_other_rounds_and_rosters_do_not_add_up():
    strategy = PRESETS["fedavg"]()
    closer = opened(strategy)
    model = np.zeros(D, np.float32)
    first = hear(opened(strategy), CROWD[:3]).close()
    roster = {u.client: u.report for u in CROWD}
    later = strategy.open(first.state, first.model, roster)
    louder = strategy.open(strategy.init(model), model, roster | {"client-9": Report(10_000)})
    for other in (later, louder):
        with pytest.raises(RoundError, match="another round, or to other shares"):
            closer.merge(hear(other, CROWD[:1]).partial())
    few = strategy.open(strategy.init(model), model, {"client-0": CROWD[0].report})
    with pytest.raises(RoundError, match="'client-1' was not invited"):
        few.merge(hear(opened(strategy), CROWD[:2]).partial())


def test_a_round_goes_on_after_it_handed_out_a_partial():
    ongoing = hear(opened(PRESETS["scaffold"]()), CROWD[:2])
    taken = ongoing.partial()
    saved = taken.to_bytes()
    hear(ongoing, RESULTS[2:])
    assert taken.to_bytes() == saved
    assert ending(ongoing) == ending(hear(opened(PRESETS["scaffold"]()), RESULTS))


def test_strategies_that_compare_vectors_have_no_partials():
    ongoing = hear(opened(PRESETS["krum"](0.1)), CROWD[:2])
    with pytest.raises(RoundError, match="compares vectors"):
        ongoing.partial()


def test_a_killed_process_s_partial_is_taken_up_by_another(tmp_path):
    """A process folds, saves and dies by SIGKILL; another goes on from the file and ends as if nothing had been."""
    file = tmp_path / "partial"
    script = f"""
import os, signal, sys
sys.path[:0] = {[path for path in sys.path if path]!r}
from test_partial import CROWD, PRESETS, hear, opened
open({str(file)!r}, "wb").write(hear(opened(PRESETS["fedadam"]()), CROWD[:4]).partial().to_bytes())
os.kill(os.getpid(), signal.SIGKILL)
"""
    here = __file__.rpartition("/")[0]
    died = subprocess.run([sys.executable, "-c", script], cwd=here, check=False, timeout=60)
    assert died.returncode == -9
    again = opened(PRESETS["fedadam"]())
    again.merge(Partial.from_bytes(file.read_bytes()))
    assert ending(hear(again, CROWD[:3:-1])) == ending(hear(opened(PRESETS["fedadam"]()), CROWD))


def test_bytes_that_are_no_partial_are_refused():
    data = hear(opened(PRESETS["fedavg"]()), CROWD[:2]).partial().to_bytes()
    arrays, metadata = load(data)
    words = json.loads(metadata["partial"])
    wrong = [
        {},
        {"partial": "{"},
        {"partial": "[]"},
        {"partial": json.dumps({**words, "sums": {"vector": [4, False]}})},
        {"partial": json.dumps({**words, "reports": {"client-0": {"examples": -1}}})},
        {"partial": json.dumps({**words, "squares": {}})},
    ]
    for other in wrong:
        with pytest.raises(LayoutError, match="no partial of a round"):
            Partial.from_bytes(dump(arrays, other))
    with pytest.raises(LayoutError):
        Partial.from_bytes(data[:-1])
