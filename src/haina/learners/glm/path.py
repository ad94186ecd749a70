"""The elastic-net path in words: how many coefficients each penalty leaves, and those of the smallest."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from haina.strategy.parts import State


def path_summary(state: State, names: Sequence[str]) -> str:
    """A table of a path.

    Args:
        state: what `haina.strategy.server.elastic_net.ElasticNetPath` remembers after the last round.
        names: of the p coefficients.
    """
    done = int(state["index"])
    lambdas, path, deviance = (state[name][:done] for name in ("lambdas", "path", "deviance"))
    shown = np.unique(np.linspace(0, done - 1, min(done, 12)).round().astype(int))
    null = float(state["null_deviance"])
    lines = [f"{'lambda':>12}  {'nonzero':>7}  {'deviance':>12}  {'explained':>9}"]
    for i in shown:
        count = int(np.count_nonzero(path[i][1:]))
        lines.append(f"{lambdas[i]:12.6g}  {count:7d}  {deviance[i]:12.6g}  {1 - deviance[i] / null:9.1%}")
    width = max(len(name) for name in names)
    lines += ["", f"Coefficients at lambda {lambdas[-1]:.6g}:"]
    lines += [f"{name:{width}}  {value:12.6g}" for name, value in zip(names, path[-1], strict=True) if value]
    return "\n".join(lines)
