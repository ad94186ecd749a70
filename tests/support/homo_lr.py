"""HomoLR in Haina, as a test's number: the coefficients that a federation file comes to."""

import numpy as np

from haina.federation.federation import Federation
from haina.interop.fate.convert import from_bytes


def trained(folder, text, rounds):
    """The model of a federation file, by the simulation's ordinary way."""
    (folder / "federation.toml").write_text(text)
    made = Federation.read(folder / "federation.toml")
    simulation = made.simulation()
    run = simulation.start()
    for _ in range(rounds):
        run, _ = simulation.advance(run)
    model = from_bytes(simulation.learner.to_bytes(run.model))
    return np.array([model.intercept, *model.weights])
