"""The command line: nouns then verbs, data on standard output, talk on standard error.

Exit codes: 0 done, 1 failed, 2 wrong usage or settings, 3 unreachable, 4 conflict.
"""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line; a `HainaError` becomes two or three plain sentences and an exit code, never a traceback."""
    from haina.cli.app import app
    from haina.errors import ConfigError, HainaError, RunError

    try:
        app()
    except HainaError as error:
        print(f"haina: {error}", file=sys.stderr)
        code = 2 if isinstance(error, ConfigError) else 4 if isinstance(error, RunError) else 1
        raise SystemExit(code) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    except BrokenPipeError:
        # The reader (head, less) has seen enough.
        sys.stderr.close()
        raise SystemExit(0) from None
    except (OSError, MemoryError) as error:
        print(f"haina: {error or 'there is not enough memory'}", file=sys.stderr)
        raise SystemExit(1) from None
