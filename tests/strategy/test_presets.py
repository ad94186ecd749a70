import inspect

import numpy as np
import pytest
from rounds import play, updates_of

from haina.artifact import dump, load
from haina.errors import StrategyError
from haina.strategy.local import Control
from haina.strategy.parts import Needs, Payload
from haina.strategy.presets import PRESETS
from haina.strategy.record import Outcome
from haina.strategy.server import Adam

#: Those that judge updates on the server's own samples are tried with a learner.
NO_JUDGE = [name for name, make in PRESETS.items() if not make().needs_judge]
NAMES = ["Zürich", "北京 7", "a\nb", "", "client-4", "مستشفى", "🏥", "x/y", "z"]


def renamed(seed):
    updates = updates_of(seed, n=len(NAMES))
    return [type(u)(name, u.vector, u.report) for name, u in zip(NAMES, updates, strict=True)]


@pytest.mark.parametrize("name", NO_JUDGE)
def test_a_preset_steps_from_its_first_round_and_is_named_as_in_a_file(name):
    strategy = PRESETS[name]()
    assert strategy.name == name
    assert strategy.combine.payload is strategy.server.accepts is Payload.AVERAGE
    model = np.zeros(5, np.float32)
    closed = play(strategy, updates_of(0, n=9), model)
    assert closed.record.outcome is Outcome.STEPPED
    assert (closed.model != model).any()
    assert closed.model.dtype == np.float32
    assert not closed.finished


@pytest.mark.parametrize("name", NO_JUDGE)
def test_a_run_that_was_saved_goes_on_bit_for_bit(name):
    strategy = PRESETS[name]()
    model = np.zeros(5, np.float32)
    closed = play(strategy, renamed(0), model)
    closed = play(strategy, renamed(1)[:8], closed.model, state=closed.state)
    arrays = closed.state.to_arrays()
    restored = strategy.restore(load(dump(arrays))[0])
    assert restored.round == 2
    assert restored.members.ids == tuple(NAMES)
    again = restored.to_arrays()
    assert list(again) == list(arrays)
    for key, array in arrays.items():
        assert again[key].dtype == array.dtype
        assert again[key].tobytes() == array.tobytes()
    here = play(strategy, renamed(2), closed.model, state=closed.state)
    there = play(strategy, renamed(2), closed.model, state=restored)
    assert here.model.tobytes() == there.model.tobytes()
    assert here.record == there.record
    assert strategy.instructions(closed.state).round == strategy.instructions(restored).round == 3


@pytest.mark.parametrize(
    ("writer", "reader"),
    [("fedadam", "fedavg"), ("fedavg", "fedadam"), ("fedavgm", "scaffold"), ("feddyn", "scaffold")],
)
def test_the_state_of_another_strategy_is_refused(writer, reader):
    state = PRESETS[writer]().init(np.zeros(5, np.float32))
    with pytest.raises(StrategyError, match="the saved state holds"):
        PRESETS[reader]().restore(state.to_arrays())


@pytest.mark.parametrize("name", PRESETS)
def test_every_argument_of_a_preset_reaches_a_part(name):
    for argument, parameter in inspect.signature(PRESETS[name]).parameters.items():
        if isinstance(parameter.default, str):
            continue
        changed = PRESETS[name](**{argument: 0.75 * parameter.default + 0.01})
        assert changed != PRESETS[name](), argument
        with pytest.raises(StrategyError):
            PRESETS[name](**{argument: float("nan")})


def test_what_each_preset_needs_before_it_can_fold():
    needs = {name: make().needs for name, make in PRESETS.items()}
    counts = {
        "fedavg",
        "fedavgm",
        "fedprox",
        "fednova",
        "fedadagrad",
        "fedadam",
        "fedyogi",
        "scaffold",
        "feddyn",
    }
    assert {name for name, need in needs.items() if need is Needs.COUNTS} == counts
    assert needs["qfedavg"] is Needs.REPORTS
    assert {needs[name] for name in needs if name not in counts | {"qfedavg"}} == {Needs.VECTORS}


def test_clients_measure_nothing_that_no_part_reads():
    assert {name: make().measure for name, make in PRESETS.items() if make().measure} == {
        "qfedavg": {"loss_before"}
    }


def test_the_settings_of_the_request_can_be_expressed():
    adam = PRESETS["fedadam"](beta1=0.9, beta2=0.999, eps=1e-8)
    assert isinstance(adam.server, Adam)
    assert (adam.server.beta1, adam.server.beta2, adam.server.eps) == (0.9, 0.999, 1e-8)


def test_what_clients_are_told():
    model = np.zeros(5, np.float32)
    prox = PRESETS["fedprox"](0.01)
    assert prox.instructions(prox.init(model)).proximal == 0.01
    assert prox.instructions(prox.init(model)).control is None
    scaffold = PRESETS["scaffold"]()
    closed = play(scaffold, updates_of(0), model)
    np.testing.assert_array_equal(
        scaffold.instructions(closed.state).control, closed.state.parts["server"]["c"]
    )
    assert scaffold.local.control is Control.SCAFFOLD
