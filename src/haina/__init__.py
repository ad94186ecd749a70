"""Haina: federated learning whose centre is the dynamic model update."""

__version__ = "0.1.0"
