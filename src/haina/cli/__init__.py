"""The command line: nouns then verbs, data on standard output, talk on standard error.

Exit codes: 0 done, 1 failed, 2 wrong usage or settings, 3 unreachable, 4 conflict.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from haina.errors import HainaError


def main() -> None:
    """Run the command line; a `HainaError` becomes two or three plain sentences and an exit code, never a traceback."""
    from haina.cli.app import app
    from haina.errors import HainaError

    try:
        app()
    except HainaError as error:
        print(f"haina: {error}", file=sys.stderr)
        raise SystemExit(_code(error)) from None
    except ValueError as error:
        # What pydantic says of an option that becomes part of a message; anything else is a defect.
        from pydantic import ValidationError

        from haina.wire.refusal import unfit

        if not isinstance(error, ValidationError):
            raise
        print(f"haina: {unfit('what you said', error)}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    except BrokenPipeError:
        # The reader (head, less) has seen enough.
        sys.stderr.close()
        raise SystemExit(0) from None
    except (OSError, MemoryError) as error:
        print(f"haina: {error or 'there is not enough memory'}", file=sys.stderr)
        raise SystemExit(1) from None


#: Exit codes of what a coordinator refuses, by the code of the refusal; 1 for the others.
_REFUSED = {"malformed": 2, "invalid": 2, "conflict": 4, "version": 4, "static": 4}


def _code(error: HainaError) -> int:
    from haina.errors import ConfigError, RunError, Unreachable

    for kind, code in ((ConfigError, 2), (Unreachable, 3), (RunError, 4)):
        if isinstance(error, kind):
            return code
    return _REFUSED.get(getattr(error, "code", ""), 1)
