import math

import numpy as np
import pytest

from haina.errors import StrategyError
from haina.strategy.schedule import Constant, Cosine, OnPlateau, Step, Warmup


def rates(schedule, rounds):
    return [schedule.rate(number, schedule.init()) for number in range(1, rounds + 1)]


def torch_rates(make, start, rounds):
    torch = pytest.importorskip("torch")
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=start)
    scheduler, out = make(torch.optim.lr_scheduler, optimizer), []
    for _ in range(rounds):
        out.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return out


@pytest.mark.parametrize(("start", "t_max", "eta_min"), [(0.05, 50, 1e-6), (0.1, 7, 0.0)])
def test_cosine_is_torchs(start, t_max, eta_min):
    expected = torch_rates(lambda s, o: s.CosineAnnealingLR(o, t_max, eta_min), start, 120)
    assert rates(Cosine(start, t_max, eta_min), 120) == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_cosine_falls_from_start_to_eta_min():
    falling = rates(Cosine(0.05, T_max=50, eta_min=1e-6), 51)
    assert falling[0] == 0.05
    assert falling[25] == pytest.approx((0.05 + 1e-6) / 2)
    assert falling[-1] == pytest.approx(1e-6)
    assert (np.diff(falling) < 0).all()


def test_step_is_torchs():
    expected = torch_rates(lambda s, o: s.StepLR(o, 3, 0.5), 0.2, 12)
    assert rates(Step(0.2, gamma=0.5, every=3), 12) == pytest.approx(expected)


def test_warmup_rises_evenly_and_then_hands_over():
    schedule = Warmup(4, Cosine(0.5, T_max=10))
    assert rates(schedule, 5) == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5])
    assert rates(schedule, 15)[4:] == pytest.approx(rates(Cosine(0.5, T_max=10), 11))


def test_plateau_is_torchs():
    torch = pytest.importorskip("torch")
    losses = np.random.default_rng(0).normal(size=60) + 3 * np.exp(-np.arange(60) / 10)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.4)
    reference = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, factor=0.5, patience=2, threshold=0.0, min_lr=0.01, eps=0.0
    )
    schedule = OnPlateau(0.4, factor=0.5, patience=2, min_rate=0.01)
    state, seen = schedule.init(), []
    for number, loss in enumerate(losses, 1):
        assert schedule.rate(number, state) == pytest.approx(optimizer.param_groups[0]["lr"])
        seen.append(schedule.rate(number, state))
        state = schedule.observe(float(loss), state)
        reference.step(loss)
    assert min(seen) == 0.01
    assert len(set(seen)) == 7


def test_plateau_is_pure_and_ignores_a_round_without_a_loss():
    schedule = OnPlateau(0.1, factor=0.5, patience=0)
    state = schedule.observe(1.0, schedule.init())
    worse = schedule.observe(2.0, state)
    assert schedule.rate(2, state) == 0.1
    assert schedule.rate(3, worse) == 0.05
    assert schedule.observe(math.nan, worse) is worse
    assert all(isinstance(array, np.ndarray) for array in worse.values())


def test_warmup_passes_losses_on():
    schedule = Warmup(2, OnPlateau(0.1, factor=0.5, patience=0))
    state = schedule.init()
    for loss in (1.0, 2.0):
        state = schedule.observe(loss, state)
    assert schedule.rate(3, state) == 0.05
    assert schedule.reads == ("loss_before",)
    assert Warmup(2).reads == ()


def test_fixed_schedules_remember_nothing():
    for schedule in (Constant(0.3), Cosine(0.1, 5), Step(0.1, 0.5, 2)):
        assert schedule.observe(1.0, schedule.init()) == {}
    assert rates(Constant(0.3), 3) == [0.3] * 3


@pytest.mark.parametrize(
    "make",
    [
        lambda: Constant(0),
        lambda: Constant(math.inf),
        lambda: Cosine(0.1, 0),
        lambda: Cosine(0.1, 5, eta_min=0.2),
        lambda: Step(0.1, 0, 2),
        lambda: Step(0.1, 0.5, 0),
        lambda: Warmup(0),
        lambda: OnPlateau(0.1, factor=1),
        lambda: OnPlateau(0.1, patience=-1),
        lambda: OnPlateau(0.1, min_rate=1),
    ],
)
def test_impossible_settings_are_refused(make):
    with pytest.raises(StrategyError):
        make()
