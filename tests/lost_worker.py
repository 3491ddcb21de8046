"""Started by test_cluster.py: a sweep with Ray on this machine, whose worker is killed."""

import json
import os
import signal
import sys
from pathlib import Path

from test_sweep import rerun

from lra.benchmarks.sweeps.cluster import RayEngine


def worker() -> int | None:
    """The process that does a run of ours."""
    for process in Path("/proc").iterdir():
        try:
            words = (process / "cmdline").read_bytes()
            ours = os.environ["MARK"].encode() in (process / "environ").read_bytes()
        except OSError:
            continue
        if ours and words.startswith(b"ray::work"):
            return int(process.name)
    return None


def kill() -> None:
    found = worker()
    assert found is not None
    os.kill(found, signal.SIGKILL)
    killed.append(found)


killed: list[int] = []

if __name__ == "__main__":
    entries = rerun(json.loads(sys.argv[1]), Path(sys.argv[2]), RayEngine(1, 1), kill)
    print(len(killed), [(entry.status, entry.reason) for entry in entries])
