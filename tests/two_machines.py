"""Started by test_cluster.py: a sweep on a Ray cluster of two machines that are both this one, of which one is lost.

They have caches and working folders of their own. Which folder ``/proc/self/cwd`` is depends on who asks, so that a
path that begins with it is one that the machines do not share.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

from ray.cluster_utils import Cluster
from test_sweep import Watched, once, swept

from lra.benchmarks.errors import LraError
from lra.benchmarks.sweeps.cluster import RayEngine

SOON = {"health_check_initial_delay_ms": 1000, "health_check_period_ms": 500, "health_check_failure_threshold": 4}


def machine(cluster: Cluster, place: Path, name: str) -> Any:
    """One more machine, of one processor."""
    folder = place / name
    folder.mkdir()
    os.chdir(folder)
    return cluster.add_node(num_cpus=1, env_vars={"LRA_CACHE": str(folder / "cache"), "PACE": "0.02"})


def main(grid: dict[str, Any], place: Path) -> None:
    head = {"num_cpus": 0, "include_dashboard": False, "_system_config": SOON}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    lost = machine(cluster, place, "first")
    machine(cluster, place, "second")
    os.chdir(place)

    kill = once(lambda: cluster.remove_node(lost, allow_graceful=False))

    def look() -> None:
        if len(list((place / "out").glob("*/*/*/checkpoint.pt"))) == 2:
            kill()

    entries = swept(grid, place / "out", RayEngine(1, 1, cluster.address), Watched(act=look))
    print(json.dumps([(entry.status, entry.reason) for entry in entries]))

    for threads in (1, 2):
        again = RayEngine(1, threads, cluster.address)
        try:
            swept(grid | {"seed": 2}, Path("/proc/self/cwd/out"), again, Watched())
        except LraError as error:
            print(error)
    cluster.shutdown()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]), Path(sys.argv[2]))
