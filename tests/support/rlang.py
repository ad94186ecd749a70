"""R for the tests: where it is, and what it has.

A test that needs R says which packages it needs. Where one is missing the test is skipped and says which; where `HAINA_REQUIRE_R=1` is set, as in CI,
it fails instead, so that nothing is skipped unseen.
"""

import functools
import os
import shutil
import subprocess

import pytest


@functools.cache
def _has(package: str) -> bool:
    rscript = shutil.which("Rscript")
    if rscript is None:
        return False
    asked = [rscript, "--vanilla", "-e", f'quit(status = !requireNamespace("{package}", quietly = TRUE))']
    return (
        subprocess.run(asked, capture_output=True, timeout=120, env=environment(), check=False).returncode
        == 0
    )


def environment() -> dict[str, str]:
    """What an R process of a test is started with: without `TZ`, R asks a service that containers lack."""
    return {**os.environ, "TZ": "UTC", "LC_ALL": "C.UTF-8"}


def require_r(*packages: str) -> str:
    """The path of `Rscript`, with these packages; else the test is skipped, or fails where R is required."""
    missing = [] if shutil.which("Rscript") else ["R itself"]
    missing += [package for package in packages if not missing and not _has(package)]
    if not missing:
        rscript = shutil.which("Rscript")
        assert rscript is not None
        return rscript
    debian = " ".join(["r-base-core", *(f"r-cran-{package.lower()}" for package in packages)])
    reason = f"R is needed here, and there is no {', '.join(missing)} (Debian: apt-get install {debian})"
    if os.environ.get("HAINA_REQUIRE_R") == "1":
        pytest.fail(reason)
    pytest.skip(reason)
