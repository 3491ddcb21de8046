"""Time, FLOPs and memory of one LRA step, computed in every way there is, interleaved in one run.

    python -m lra.benchmarks.cost.meta_step --threads 1 --out benchmarks/results/meta-step.md

Each round takes one step of every kind in turn. "time" is the median over rounds of a step's time over that of the
plain joint replay step in the same round, "fastest" the ratio of the fastest of each. One CPU thread is timed by the
processor's clock (a shared machine's wall clock also counts the neighbours), all else by the wall's. FLOPs count
convolutions and matrix products. Peak memory is the most that a step holds beyond what was allocated before it. The
exact gradient is that of PyTorch's own derivatives in float64, each batch going through the student by itself. A plain
step's differs, as it has no look-ahead and BatchNorm sees both batches together, as with joint statistics.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from lra.anatomy import batchnorm_layers
from lra.benchmarks.cost import meta_step_variants as variants
from lra.benchmarks.cost.meta_step_variants import Problem, Step
from lra.benchmarks.files import write_text
from lra.benchmarks.markdown import table

BASE = "plain joint replay"


def rows(p: Problem, options: argparse.Namespace) -> Iterator[tuple[str, Step]]:
    """Name and step of every row asked for."""
    yield BASE, variants.joint(p)
    yield "plain joint replay, kernels of the rules", variants.joint(p, rules=True)
    yield "first order", variants.meta(p, order=1)
    yield "lean, exact, PyTorch's own derivatives", variants.meta(p, rules=False)
    yield "lean, exact, closed-form rules", variants.meta(p)
    yield "lean, exact, rules, learned rates", variants.learned(p)
    if batchnorm_layers(p.student, p.x.shape[1:]):
        yield "lean, exact, rules, joint statistics", variants.together(p)
    with suppress(ImportError):
        yield "higher, published style (redundant passes)", variants.published(p)
        yield "higher, exact, PyTorch's own derivatives", variants.meta(p, engine="higher", rules=False)
        yield "higher, exact, closed-form rules", variants.meta(p, engine="higher")
    for parts in (4, 8, 16):
        yield f"lean, curvature of 1/{parts} of the batch", variants.part(p, 1 / parts)
    if options.channels_last:
        last = p.to(memory_format=torch.channels_last)
        yield "plain joint replay, channels-last", variants.joint(last)
        yield "lean, exact, rules, channels-last", variants.meta(last)
    if options.autocast:
        cast = Problem(p.student, p.x, p.t, p.x_old, p.t_old, cast=True)
        yield "plain joint replay, bfloat16 autocast", variants.joint(cast)
        yield "lean, exact, rules, bfloat16 autocast", variants.meta(cast)
    if options.compile:
        yield "plain joint replay, compiled", variants.compiled_joint(p)
        yield "lean, exact, rules, compiled", variants.compiled_exact(p)
    if options.cuda_graph:
        yield "plain joint replay, CUDA graph", variants.graphed(variants.joint(p))
        yield "lean, exact, rules, CUDA graph", variants.graphed(variants.meta(p, check=False))


def clock(options: argparse.Namespace) -> float:
    """Seconds: of the processor for one CPU thread, else of the wall when all work on the device is done."""
    if options.device == "cuda":
        torch.cuda.synchronize()
    elif options.threads == 1:
        return time.process_time()
    return time.perf_counter()


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the profiler's chatter, written by C++ code, off the terminal."""
    sys.stderr.flush()
    kept = os.dup(2)
    with open(os.devnull, "w") as sink:
        os.dup2(sink.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def peak_memory(step: Step, device: str) -> int:
    """Most bytes allocated at once by a step, beyond what was allocated before it."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        return torch.cuda.max_memory_allocated() - before
    with quiet(), profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        step()
    events = record.profiler.kineto_results.events()
    changes = sorted((event.start_ns(), event.nbytes()) for event in events if event.name() == "[memory]")
    total = peak = 0
    for _, change in changes:
        total += change
        peak = max(peak, total)
    return peak


def measure(network: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """One record for each row."""
    p = variants.problem(network, options.batch, options.device)
    steps = dict(rows(p, options))
    exact = variants.meta(p.to(dtype=torch.float64), rules=False)()
    records = []
    for name, step in steps.items():
        step()
        similarity, error = variants.cosine_and_error(step(), exact)
        with FlopCounterMode(display=False) as counter:
            step()
        memory = peak_memory(step, options.device)
        flops = counter.get_total_flops()
        records.append({"row": name, "flops": flops, "memory": memory, "cosine": similarity, "error": error})
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(options.rounds):
        for name, step in steps.items():
            start = clock(options)
            step()
            times[name].append(clock(options) - start)
    base = records[0]
    for record in records:
        taken = times[record["row"]]
        ratios = [own / plain for own, plain in zip(taken, times[BASE], strict=True)]
        record |= {"network": network, "batch": len(p.x), "seconds": statistics.median(taken)}
        record |= {"fastest": min(taken), "ratio": statistics.median(ratios)}
        record |= {"ratio_of_fastest": min(taken) / min(times[BASE])}
        record |= {f"{key}_ratio": record[key] / max(1, base[key]) for key in ("flops", "memory")}
    return records


def machine(options: argparse.Namespace) -> str:
    """What the numbers were measured on."""
    name = torch.cuda.get_device_name() if options.device == "cuda" else torch.backends.cpu.get_cpu_capability()
    with suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name += ", " + next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    threads = f"{options.threads} of {os.cpu_count()} CPU threads"
    return f"{name}, {threads}, load {load} at the end; torch {torch.__version__}, Python {platform.python_version()}"


def section(records: list[dict[str, Any]]) -> str:
    """The records of one network in markdown."""
    first = records[0]
    batches = f"{first['batch']} new and {max(1, first['batch'] // 8)} old samples"
    cost = f"{first['seconds'] * 1e3:.1f} ms, {first['flops'] / 1e9:.2f} GFLOP, {first['memory'] / 2**20:.0f} MiB"
    head = ["step", "time", "fastest", "FLOPs", "peak memory", "cosine to exact", "distance to exact"]
    rows = []
    for r in records:
        flops = f"{r['flops_ratio']:.2f}" if r["flops"] else "–"
        ratios = [f"{r['ratio']:.2f}", f"{r['ratio_of_fastest']:.2f}", flops, f"{r['memory_ratio']:.2f}"]
        rows.append([r["row"], *ratios, f"{r['cosine']:.5f}", f"{r['error']:.1e}"])
    return f"## {first['network']}, {batches}, plain step {cost}\n\n{table(head, rows)}\n"


def parser() -> argparse.ArgumentParser:
    """The command line."""
    command = argparse.ArgumentParser(
        prog="python -m lra.benchmarks.cost.meta_step", description=__doc__.split("\n")[0]
    )
    default = ["lenet5-half", "resnet20", "wrn16-1", "resnet18"]
    command.add_argument("--networks", nargs="+", default=default, choices=list(variants.SETTINGS), metavar="NAME")
    command.add_argument("--batch", type=int, help="samples to acquire; the old batch is an eighth of it")
    command.add_argument("--rounds", type=int, default=9)
    command.add_argument("--threads", type=int, default=1)
    command.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    for flag in ("channels-last", "autocast", "compile", "cuda-graph", "json"):
        command.add_argument(f"--{flag}", action="store_true")
    command.add_argument("--out", type=Path, help="also write the tables to this file")
    return command


def main() -> None:
    """Measure and print."""
    options = parser().parse_args()
    torch.set_num_threads(options.threads)
    records, tables = [], []
    for network in options.networks:
        found = measure(network, options)
        records += found
        tables.append(section(found))
        if not options.json:
            print(tables[-1], flush=True)
    if options.json:
        print(json.dumps({"machine": machine(options), "records": records}))
    if options.out:
        command = "python -m lra.benchmarks.cost.meta_step " + " ".join(sys.argv[1:])
        notes = (__doc__ or "").split("\n\n", 2)[2].replace("\n", " ")
        heading = f"# One LRA step\n\n    {command}\n\n{machine(options)}.\n\n{notes}\n"
        write_text(options.out, "\n".join([heading, *tables]))


if __name__ == "__main__":
    main()
