"""Rounds on one machine: the strategy of a deployment, fed by simulated clients."""
