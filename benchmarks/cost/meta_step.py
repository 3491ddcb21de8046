"""Time, FLOPs and memory of one LRA step, computed in every way there is, interleaved in one run.

    python -m lra.benchmarks.cost.meta_step --threads 1 --out benchmarks/results/meta-step.md

Each round takes one step of every kind in turn. "time" is the time of a step relative to the plain joint replay step of
the same round, as the median over rounds; "fastest" is the ratio of the fastest step of each kind. With one CPU thread,
time is processor time (on a shared machine, wall time also counts other programs); otherwise it is wall time. FLOPs
count convolutions and matrix products. Peak memory is the most that a step holds beyond what was allocated before it.
The exact gradient is computed with PyTorch's own derivatives in float64, each batch going through the student by
itself. The gradient of a plain step differs from it, because a plain step has no look-ahead and because BatchNorm sees
both batches together, as with joint statistics.
"""

import argparse
import copy
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import l1_loss
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from lra.anatomy import batchnorm_layers
from lra.benchmarks.files import write_text
from lra.benchmarks.text import markdown_table
from lra.meta.closed_form.rules import closed_form
from lra.meta.lookahead import Forward, in_one_batch
from lra.meta.options import LookAheadOptions
from lra.meta.step import LookAheadStep
from lra.networks import build

BASE = "plain joint replay"
ALPHA = 0.01
SETTINGS = {
    "lenet5": ((1, 32, 32), 256),
    "lenet5-half": ((1, 32, 32), 256),
    "resnet8": ((3, 32, 32), 128),
    "resnet20": ((3, 32, 32), 64),
    "wrn16-1": ((3, 32, 32), 64),
    "resnet18": ((3, 32, 32), 32),
}
"""Image and default batch of each network."""

Step = Callable[[], Sequence[Tensor]]
"""Takes one step and returns its gradients."""


@dataclass
class Problem:
    """A student with one batch to acquire and one, an eighth of it, to retain."""

    student: nn.Module
    x: Tensor
    t: Tensor
    x_old: Tensor
    t_old: Tensor
    cast: bool = False

    @property
    def parameters(self) -> list[nn.Parameter]:
        """The student's parameters."""
        return list(self.student.parameters())

    def to(self, **options: Any) -> "Problem":
        """The same problem on the same weights, in another memory format, say."""
        x, x_old = self.x.to(**options), self.x_old.to(**options)
        return Problem(copy.deepcopy(self.student).to(**options), x, self.t, x_old, self.t_old, self.cast)

    def loss(self, forward: Callable[..., Tensor], x: Tensor, t: Tensor) -> Tensor:
        """Mean absolute difference of logits."""
        with torch.autocast(x.device.type, torch.bfloat16) if self.cast else nullcontext():
            return l1_loss(forward(x).float(), t)

    def acquire(self, forward: Callable[..., Tensor]) -> Tensor:
        """L_acq."""
        return self.loss(forward, self.x, self.t)

    def retain(self, forward: Callable[..., Tensor]) -> Tensor:
        """L_ret."""
        return self.loss(forward, self.x_old, self.t_old)

    def joint(self, forward: Callable[..., Tensor]) -> Tensor:
        """L_acq + L_ret from one pass over both batches."""
        with torch.autocast(self.x.device.type, torch.bfloat16) if self.cast else nullcontext():
            logits = forward(torch.cat([self.x, self.x_old])).float()
        count = len(self.x)
        return l1_loss(logits[:count], self.t) + l1_loss(logits[count:], self.t_old)


def cosine_and_error(found: Sequence[Tensor], exact: Sequence[Tensor]) -> tuple[float, float]:
    """Cosine and relative distance of two gradients, each taken as one vector."""
    a, b = (torch.cat([g.detach().double().flatten() for g in side]) for side in (found, exact))
    return float(a @ b / (a.norm() * b.norm())), float((a - b).norm() / b.norm())


def problem(network: str, batch: int | None, device: str) -> Problem:
    """A fresh student and random batches, the same for every call."""
    image, default = SETTINGS[network]
    torch.manual_seed(0)
    count = batch or default
    student = build(network, 10, image).to(device)
    sizes = (count, max(1, count // 8))
    x, x_old = (torch.randn(size, *image).to(device) for size in sizes)
    t, t_old = (torch.randn(size, 10).to(device) for size in sizes)
    return Problem(student, x, t, x_old, t_old)


def joint(p: Problem, rules: bool = False) -> Step:
    """Plain replay: one pass over the concatenated batch, one backward."""

    def step() -> Sequence[Tensor]:
        with closed_form(1) if rules else nullcontext():
            loss = p.joint(p.student)
        return torch.autograd.grad(loss, p.parameters)

    return step


def meta(p: Problem, part: float = 1.0, **options: Any) -> Step:
    """The toolkit's step with ``options``, and with the curvature of a ``part`` of the acquisition batch."""
    chosen: dict[str, Any] = {"alpha": ALPHA, "alpha_rate": 0.0, "statistics": "batch", **options}
    step, count = LookAheadStep(LookAheadOptions(**chosen)), max(2, round(len(p.x) * part))

    def acquire(forward: Forward) -> Tensor:
        return p.acquire(in_one_batch(forward, p.x_old) if chosen["statistics"] == "joint" else forward)

    def curvature(forward: Forward) -> Tensor:
        return p.loss(forward, p.x[:count], p.t[:count])

    return lambda: step(p.student, acquire, p.retain, curvature=curvature if part < 1 else None).gradients


def published(p: Problem) -> Step:
    """The released code's passes: inner step, retention at θ', joint pass, backward through it all.

    Its gradient is the joint step's: ``higher`` copies the weights off the graph by default.
    """
    import higher

    def step() -> Sequence[Tensor]:
        p.student.zero_grad()
        inner = torch.optim.SGD(p.student.parameters(), lr=ALPHA)
        with higher.innerloop_ctx(p.student, inner) as (patched, differentiable):
            differentiable.step(p.acquire(patched))
            ahead = p.retain(patched)
            (p.joint(p.student) + ahead).backward()
        return [parameter.grad for parameter in p.parameters if parameter.grad is not None]

    return step


def compiled_joint(p: Problem) -> Step:
    """Plain replay on a student compiled by inductor."""
    student = torch.compile(p.student)
    return lambda: torch.autograd.grad(p.joint(student), p.parameters)


def compiled_exact(p: Problem) -> Step:
    """The exact step, traced to one graph of operations that inductor compiles; no checks, buffers discarded."""
    from torch.fx.experimental.proxy_tensor import make_fx

    names = [name for name, _ in p.student.named_parameters()]

    def trace(values: list[Tensor], buffers: dict[str, Tensor], *batches: Tensor) -> list[Tensor]:
        x, t, x_old, t_old = batches
        traced = Problem(p.student, x, t, x_old, t_old, p.cast)
        theta = [value.detach().requires_grad_() for value in values]

        def forward(at: Sequence[Tensor]) -> Callable[..., Tensor]:
            state = {**dict(zip(names, at, strict=True)), **{name: b.clone() for name, b in buffers.items()}}
            return lambda x: functional_call(p.student, state, x)

        with closed_form():
            acquisition = traced.acquire(forward(theta))
        g = torch.autograd.grad(acquisition, theta, create_graph=True)
        with closed_form(1):
            retention = traced.retain(forward([a - ALPHA * b for a, b in zip(theta, g, strict=True)]))
        return [a.detach() + b for a, b in zip(g, torch.autograd.grad(retention, theta), strict=True)]

    values, buffers = [parameter.detach() for parameter in p.parameters], dict(p.student.named_buffers())
    graph = torch.compile(make_fx(trace)(values, buffers, p.x, p.t, p.x_old, p.t_old))
    return lambda: graph(values, buffers, p.x, p.t, p.x_old, p.t_old)


def rows(p: Problem, options: argparse.Namespace) -> Iterator[tuple[str, Step]]:
    """Name and step of every requested row."""
    yield BASE, joint(p)
    yield "plain joint replay, kernels of the rules", joint(p, rules=True)
    yield "first order", meta(p, order=1)
    yield "lean, exact, PyTorch's own derivatives", meta(p, rules=False)
    yield "lean, exact, closed-form rules", meta(p)
    yield "lean, exact, rules, learned rates", meta(p, alpha_rate=0.02)
    if batchnorm_layers(p.student, p.x.shape[1:]):
        yield "lean, exact, rules, joint statistics", meta(p, statistics="joint")
    with suppress(ImportError):
        yield "higher, published style (redundant passes)", published(p)
        yield "higher, exact, PyTorch's own derivatives", meta(p, engine="higher", rules=False)
        yield "higher, exact, closed-form rules", meta(p, engine="higher")
    for parts in (4, 8, 16):
        yield f"lean, curvature of 1/{parts} of the batch", meta(p, part=1 / parts)
    if options.channels_last:
        last = p.to(memory_format=torch.channels_last)
        yield "plain joint replay, channels-last", joint(last)
        yield "lean, exact, rules, channels-last", meta(last)
    if options.autocast:
        cast = Problem(p.student, p.x, p.t, p.x_old, p.t_old, cast=True)
        yield "plain joint replay, bfloat16 autocast", joint(cast)
        yield "lean, exact, rules, bfloat16 autocast", meta(cast)
    if options.compile:
        yield "plain joint replay, compiled", compiled_joint(p)
        yield "lean, exact, rules, compiled", compiled_exact(p)


def clock(options: argparse.Namespace) -> float:
    """Processor seconds with one CPU thread; otherwise wall-clock seconds, once all work on the device is done."""
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
    p = problem(network, options.batch, options.device)
    steps = dict(rows(p, options))
    exact = meta(p.to(dtype=torch.float64), rules=False)()
    records = []
    for name, step in steps.items():
        step()
        similarity, error = cosine_and_error(step(), exact)
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
    return f"## {first['network']}, {batches}, plain step {cost}\n\n{markdown_table(head, rows)}\n"


def parser() -> argparse.ArgumentParser:
    """The command line."""
    command = argparse.ArgumentParser(
        prog="python -m lra.benchmarks.cost.meta_step", description=__doc__.split("\n")[0]
    )
    default = ["lenet5-half", "resnet20", "wrn16-1", "resnet18"]
    command.add_argument("--networks", nargs="+", default=default, choices=list(SETTINGS), metavar="NAME")
    command.add_argument("--batch", type=int, help="samples to acquire; the old batch is an eighth of it")
    command.add_argument("--rounds", type=int, default=9)
    command.add_argument("--threads", type=int, default=1)
    command.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    for flag in ("channels-last", "autocast", "compile", "json"):
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
        heading = f"# What one LRA step costs, engine by engine\n\n    {command}\n\n{machine(options)}.\n\n{notes}\n"
        write_text(options.out, "\n".join([heading, *tables]))


if __name__ == "__main__":
    main()
