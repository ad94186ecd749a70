"""What every part is called in a federation file."""

from __future__ import annotations

from haina.federation.parts import Registry
from haina.strategy.combine import Mean, Nova, QFair
from haina.strategy.factors import (
    Accuracy,
    Convergence,
    Disco,
    EffectiveSamples,
    Link,
    Participation,
    Samples,
    Staleness,
    StalenessHinge,
    Uniform,
)
from haina.strategy.robust import (
    ARC,
    CAF,
    MDA,
    NNM,
    Bulyan,
    CentredClipping,
    ClipNorm,
    GeometricMedian,
    Krum,
    Meamed,
    Median,
    MoNNA,
    MultiKrum,
    TrimmedMean,
)
from haina.strategy.schedule import Constant, Cosine, OnPlateau, Step, Warmup
from haina.strategy.select import ByParticipation, BySamples, BySimilarity, Poisson, PowerOfChoice
from haina.strategy.select import Uniform as UniformSelection
from haina.strategy.server import SGD, Adagrad, Adam, FedDyn, FedExP, Scaffold, Yogi
from haina.strategy.validate import AdaptiveClip, FixedClip, MedianClip


def nnm_geometric_median(byzantine: float | int = 0.2) -> NNM:
    """Nearest-neighbour mixing, then the geometric median."""
    return NNM(byzantine, GeometricMedian())


COMBINERS: Registry = {
    "mean": Mean,
    "nova": Nova,
    "qfair": QFair,
    "krum": Krum,
    "multikrum": MultiKrum,
    "bulyan": Bulyan,
    "median": Median,
    "trimmed_mean": TrimmedMean,
    "geometric_median": GeometricMedian,
    "centred_clipping": CentredClipping,
    "caf": CAF,
    "mda": MDA,
    "monna": MoNNA,
    "meamed": Meamed,
    "nnm": NNM,
    "nnm_geometric_median": nnm_geometric_median,
    "arc": ARC,
    "clip_norm": ClipNorm,
}

SERVERS: Registry = {
    "sgd": SGD,
    "adagrad": Adagrad,
    "adam": Adam,
    "yogi": Yogi,
    "fedexp": FedExP,
    "scaffold": Scaffold,
    "feddyn": FedDyn,
}

FACTORS: Registry = {
    "uniform": Uniform,
    "samples": Samples,
    "accuracy": Accuracy,
    "convergence": Convergence,
    "link": Link,
    "participation": Participation,
    "effective_samples": EffectiveSamples,
    "disco": Disco,
    "staleness": Staleness,
    "staleness_hinge": StalenessHinge,
}

CLIPS: Registry = {"fixed": FixedClip, "adaptive": AdaptiveClip, "median": MedianClip}

SCHEDULES: Registry = {
    "constant": Constant,
    "cosine": Cosine,
    "step": Step,
    "warmup": Warmup,
    "on_plateau": OnPlateau,
}

SELECTORS: Registry = {
    "uniform": UniformSelection,
    "samples": BySamples,
    "similarity": BySimilarity,
    "participation": ByParticipation,
    "power_of_choice": PowerOfChoice,
    "poisson": Poisson,
}

#: Limits that clients can keep to by themselves.
BOUNDS: Registry = {name: CLIPS[name] for name in ("fixed", "adaptive")}
