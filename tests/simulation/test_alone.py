import subprocess
import sys

import pytest

from haina.errors import RunError
from haina.simulation.rundir import RunDir

HOLD = """
import sys
from pathlib import Path
from haina.simulation.rundir import RunDir
with RunDir(Path(sys.argv[1])).alone():
    print("held", flush=True)
    sys.stdin.read()
"""


def test_two_processes_do_not_write_one_run_and_a_killed_one_lets_go(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(RunError, match="another process"), RunDir(tmp_path).alone():
            pass
        holder.kill()
        holder.wait()
    with RunDir(tmp_path).alone():
        pass
