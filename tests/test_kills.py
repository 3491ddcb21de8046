"""Runs that are really killed, in the middle of anything, end as those that were left alone.

The long version, over all methods and replays, is a command: see `lra.benchmarks.robustness.kills`.
"""

import re
import subprocess
import sys


def test_killed_runs_end_the_same() -> None:
    command = [sys.executable, "-m", "lra.benchmarks.robustness.kills", "--sample", "3", "--kills", "2", "--seed", "5"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found = re.search(r"3 of 3 runs end the same; (\d+) kills survived", done.stdout)
    assert found, done.stdout
    assert int(found[1]) >= 3
