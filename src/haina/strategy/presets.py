"""Presets: the methods of the literature, each as one line of parts.

    strategy = presets["fedadam"](lr=0.03)

A preset is a starting point: `dataclasses.replace(strategy, clip=FixedClip(1.0))` changes one part and keeps the others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from haina.strategy.combine import Nova, QFair
from haina.strategy.local import Control, Local
from haina.strategy.robust import NNM, Bulyan, GeometricMedian, Krum, Median, MultiKrum, TrimmedMean
from haina.strategy.server import SGD, Adagrad, Adam, FedDyn, FedExP, Scaffold, Yogi
from haina.strategy.server.adaptive import BiasCorrection
from haina.strategy.strategy import Strategy
from haina.strategy.trust import Trust
from haina.strategy.validate import MedianClip
from haina.strategy.weigh import Uniform, Weigh

#: Krum, medians and trimmed means count every client once.
_EQUAL = Weigh((Uniform(),))


def fedavg(lr: float = 1.0) -> Strategy:
    """Sample-weighted mean (McMahan et al. 2017)."""
    return Strategy(server=SGD(lr), name="fedavg")


def fedavgm(lr: float = 1.0, momentum: float = 0.9) -> Strategy:
    """Mean with server momentum (Hsu et al. 2019)."""
    return Strategy(server=SGD(lr, momentum), name="fedavgm")


def fedprox(proximal: float = 0.01) -> Strategy:
    """Mean with a proximal term on the client (Li et al. 2020); its authors tune mu over 0.001, 0.01, 0.1, 0.5, 1."""
    return Strategy(local=Local(proximal), name="fedprox")


def fednova(proximal: float = 0.0) -> Strategy:
    """Normalised averaging (Wang et al. 2020); unequal local steps no longer pull the model to those who took more."""
    nova = Nova("steps" if proximal > 0 else "norm")
    return Strategy(combine=nova, local=Local(proximal), name="fednova")


def fedadagrad(lr: float = 0.03, eps: float = 1e-3) -> Strategy:
    """Adaptive server step, sums of squares (Reddi et al. 2021); the strongest of nine under one class per client."""
    return Strategy(server=Adagrad(lr, eps=eps), name="fedadagrad")


def fedadam(
    lr: float = 0.03,
    beta1: float = 0.9,
    beta2: float = 0.99,
    eps: float = 1e-3,
    bias_correction: BiasCorrection = "none",
) -> Strategy:
    """Adaptive server step with momentum (Reddi et al. 2021, Alg. 2)."""
    return Strategy(server=Adam(lr, beta1, beta2, eps, bias_correction=bias_correction), name="fedadam")


def fedyogi(lr: float = 0.03, beta1: float = 0.9, beta2: float = 0.99, eps: float = 1e-3) -> Strategy:
    """FedAdam whose second moment grows additively (Reddi et al. 2021)."""
    return Strategy(server=Yogi(lr, beta1, beta2, eps), name="fedyogi")


def scaffold(lr: float = 1.0) -> Strategy:
    """Control variates against client drift (Karimireddy et al. 2020)."""
    return Strategy(server=Scaffold(lr), local=Local(control=Control.SCAFFOLD), weigh=_EQUAL, name="scaffold")


def feddyn(alpha: float = 0.1) -> Strategy:
    """Dynamic regularisation (Acar et al. 2021)."""
    return Strategy(server=FedDyn(alpha), local=Local(alpha, Control.FEDDYN), weigh=_EQUAL, name="feddyn")


def fedexp(eps: float = 1e-3) -> Strategy:
    """Extrapolated server step (Jhunjhunwala et al. 2023); updates are clipped, for an attacker could inflate the step."""
    return Strategy(clip=MedianClip(), server=FedExP(eps), name="fedexp")


def qfedavg(q: float = 1.0, learning_rate: float = 0.1) -> Strategy:
    """Fairness: clients with a higher loss count more (Li et al. 2020, q-FFL). Not for clients that may lie."""
    return Strategy(combine=QFair(q, learning_rate), weigh=_EQUAL, name="qfedavg")


def krum(byzantine: float | int = 0.2) -> Strategy:
    """The one update closest to its neighbours (Blanchard et al. 2017)."""
    return Strategy(weigh=_EQUAL, combine=Krum(byzantine), name="krum")


def multikrum(byzantine: float | int = 0.2) -> Strategy:
    """Mean of the n - f updates with the best Krum scores (Blanchard et al. 2017)."""
    return Strategy(combine=MultiKrum(byzantine), name="multikrum")


def bulyan(byzantine: float | int = 0.2) -> Strategy:
    """Krum's selection, then a mean around the median of each coordinate (El Mhamdi et al. 2018)."""
    return Strategy(weigh=_EQUAL, combine=Bulyan(byzantine), name="bulyan")


def median() -> Strategy:
    """Median of each coordinate (Yin et al. 2018)."""
    return Strategy(weigh=_EQUAL, combine=Median(), name="median")


def trimmed_mean(byzantine: float | int = 0.2) -> Strategy:
    """Mean of each coordinate without its f highest and lowest values (Yin et al. 2018)."""
    return Strategy(weigh=_EQUAL, combine=TrimmedMean(byzantine), name="trimmed_mean")


def geometric_median() -> Strategy:
    """The point with the least weighted sum of distances (Pillutla et al. 2022)."""
    return Strategy(combine=GeometricMedian(), name="geometric_median")


def nnm(byzantine: float | int = 0.4) -> Strategy:
    """Nearest-neighbour mixing, then the geometric median (Allouah et al. 2023)."""
    return Strategy(combine=NNM(byzantine, GeometricMedian()), name="nnm")


def robust(hostile: float = 0.4, momentum: float = 0.7) -> Strategy:
    """Trust by agreement with the other clients, then a clipped mean and server momentum: no data on the server, the number of attackers not told.

    Measured: momentum raises every cell of the digits table, with and without attackers; 0.5 and 0.7 were chosen on the seeds trust was tuned on.
    """
    return Strategy(trust=Trust("peers", hostile=hostile), server=SGD(momentum=momentum), name="robust")


def trusted(hostile: float = 0.4, momentum: float = 0.5) -> Strategy:
    """Trust by agreement with samples that the server holds, an arbiter, then a clipped mean and server momentum: the strongest."""
    return Strategy(trust=Trust("server", hostile=hostile), server=SGD(momentum=momentum), name="trusted")


#: Every preset by its name in a federation file.
PRESETS: Mapping[str, Callable[..., Strategy]] = {
    make.__name__: make
    for make in (
        fedavg,
        fedavgm,
        fedprox,
        fednova,
        fedadagrad,
        fedadam,
        fedyogi,
        scaffold,
        feddyn,
        fedexp,
        qfedavg,
        krum,
        multikrum,
        bulyan,
        median,
        trimmed_mean,
        geometric_median,
        nnm,
        robust,
        trusted,
    )
}
