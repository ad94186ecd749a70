"""Every error Haina raises on purpose.

An error speaks to the person: what was wrong (with the value), what is allowed, what to do next. The three parts are
kept apart so that a terminal, a log line and an HTTP answer can each show them in their own way.
"""

from __future__ import annotations


class HainaError(Exception):
    """Base class of all typed errors.

    Args:
        what: what was wrong, with the offending value.
        allowed: what would have been accepted.
        remedy: what the reader can do now.
    """

    def __init__(self, what: str, *, allowed: str = "", remedy: str = "") -> None:
        self.what = what
        self.allowed = allowed
        self.remedy = remedy
        super().__init__(what)

    def __str__(self) -> str:
        parts = [self.what]
        if self.allowed:
            parts.append(f"Allowed: {self.allowed}")
        if self.remedy:
            parts.append(self.remedy)
        text = ". ".join(part.rstrip(".") for part in parts)
        return text if text.endswith("?") else text + "."


class ConfigError(HainaError):
    """A federation file, an option or an environment variable cannot be used."""


class LayoutError(HainaError):
    """Tensors do not fit the layout, or bytes are not a readable model."""


class ReportError(HainaError):
    """A client's report holds a number that no honest client can send."""


class StrategyError(HainaError):
    """Parts of a strategy cannot hold together, or a part was given an impossible setting."""


class RoundError(HainaError):
    """A round could not produce a new model; the previous model stays in force."""


class DataError(HainaError):
    """Data cannot be read, or cannot be divided as asked."""


class LearnerError(HainaError):
    """Local training cannot be done as asked (missing extra, unusable model, loss that is not finite)."""


class RunError(HainaError):
    """A run directory cannot be read, resumed or written."""


class PrivacyError(HainaError):
    """What was promised of privacy cannot be kept as asked: a setting, a spent budget, or a message of a secure sum that must not be answered."""


class TrustError(HainaError):
    """A key, a certificate, a signature request or an invitation cannot be read, or must not be trusted."""


class Unreachable(HainaError):  # noqa: N818 -- it is said of the coordinator
    """The other end did not answer: no connection, a connection cut, or no answer in time. Trying again later is right; exit code 3."""
