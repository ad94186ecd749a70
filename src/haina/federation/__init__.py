"""federation.toml into typed objects: the one place where names become parts."""

from haina.federation.federation import Federation

__all__ = ["Federation"]
