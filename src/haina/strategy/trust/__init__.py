"""Trust: clients are scored over rounds, and the score gates what they may contribute.

Three questions, a file each: does this update look like learning (`agreement`), what follows for the client over the rounds (`standing`), and is what
comes out better than what else could be done (`arbiter`). Where only sums of clients are seen, `groups` asks the first two of groups.
"""

from haina.strategy.trust.arbiter import Arbiter
from haina.strategy.trust.standing import Standing
from haina.strategy.trust.trust import Trust

__all__ = ["Arbiter", "Standing", "Trust"]
