"""What commands print: a run's result, a plan's cost, catalogues."""

import inspect
import json
from pathlib import Path
from typing import Any

import yaml

from lra.benchmarks.setup.config import RunConfig
from lra.benchmarks.setup.presets import presets


def table(result: dict[str, Any], folder: Path) -> str:
    """A run's result for a terminal."""
    meta = " + LRA" if result["meta"] else ""
    cost, teacher = result["cost"], result["teacher"]
    rows = [
        ("run", f"{result['method']}, replay {result['replay']}{meta}, {result['dataset']}, seed {result['seed']}"),
        ("teacher", f"{teacher['name']}, {_percent(teacher['accuracy'])}"),
        ("student", f"{result['student']['name']}, {result['student']['parameters']:,} parameters"),
        ("accuracy", _accuracy(result["accuracy"])),
        ("fidelity", f"agreement {_percent(result['agreement'])}, loyalty {_number(result['loyalty'])}"),
        ("forgetting", _forgetting(result["forgetting"])),
        ("alignment", f"mean cos(∇L_acq, ∇L_ret) {_number(result['alignment']['mean'])}"),
        (
            "cost",
            f"{cost['student_steps']:,} student steps, {cost['experiences']:,} experiences, "
            f"{cost['teacher_queries']:,} teacher queries, {cost['seconds']:.1f} s, {cost['peak_memory_mb']:.0f} MB",
        ),
        ("report", str(folder / "report.html")),
    ]
    return "\n".join(f"{name:11} {text}" for name, text in rows)


def _accuracy(accuracy: dict[str, Any] | None) -> str:
    if accuracy is None:
        return "no test set"
    return (
        f"final {_percent(accuracy['final'])}, max {_percent(accuracy['max'])}, "
        f"μ {accuracy['mean']:.2f}, σ² {accuracy['variance']:.2f} "
        f"(last half: μ {accuracy['tail_mean']:.2f}, σ² {accuracy['tail_variance']:.2f})"
    )


def _forgetting(forgetting: dict[str, Any]) -> str:
    if "average" not in forgetting:
        return "too few evaluations to tell"
    return f"{forgetting['average']:.2f} points on average over probes, backward transfer {forgetting['bwt']:+.2f}"


def _percent(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.2f} %"


def _number(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.3f}"


def plan(config: RunConfig, as_json: bool) -> str:
    """The resolved configuration as YAML (or JSON), and what the run would cost."""
    from lra.benchmarks.setup.experiment import budget

    experiences, _ = budget(config)
    steps, batch = config.schedule.student_steps, config.schedule.batch_size
    cost = {"student_steps": steps, "experiences": experiences, "student_images": steps * batch}
    if as_json:
        return json.dumps({"config": config.tree(), "cost": cost}) + "\n"
    costs = "".join(f"#   {name.replace('_', ' ')}: {number:,}\n" for name, number in cost.items())
    return yaml.safe_dump(config.tree(), sort_keys=False) + "# would cost at least\n" + costs


def catalogue(what: str) -> dict[str, str]:
    """Names and one-line descriptions of methods, replays, presets, datasets, models or plugins."""
    if what == "presets":
        return {name: _preset(tree) for name, tree in presets().items()}
    if what == "datasets":
        from lra.benchmarks.setup.datasets import DATASETS

        known = {name: _first_line(make) for name, make in DATASETS.items()}
        return known | {"npz:FILE": "arrays images (uint8, n,H,W[,C]) and labels; {split} in FILE: train or test"}
    if what == "models":
        from lra.networks import NETWORKS

        return dict.fromkeys(NETWORKS, "")
    from lra.strategies.extensions import replay_plugins
    from lra.strategies.methods import METHODS
    from lra.strategies.retention import REPLAYS

    if what == "methods":
        return {name: f"{method.paper}. {_first_line(method)}" for name, method in METHODS.items()}
    installed = {name: f"installed: {point.value}" for name, point in replay_plugins().items()}
    if what == "plugins":
        return installed
    return {name: options.summary for name, options in REPLAYS.items()} | installed


def _preset(tree: dict[str, Any]) -> str:
    meta = " --meta" if tree.get("meta") else ""
    replay = tree.get("replay", "none")
    name = replay["name"] if isinstance(replay, dict) else replay
    return f"--method {tree['method']} --replay {name}{meta}  ({tree['source']})"


def _first_line(thing: object) -> str:
    return (inspect.getdoc(thing) or "").split("\n")[0]
