"""Where the settings of a run are from, and what it replays, in lines for its user."""

from collections.abc import Iterator

from lra.benchmarks.setup.config import RunConfig
from lra.benchmarks.setup.presets import presets, settings_of, source_of
from lra.benchmarks.setup.scales import PUBLISHED, facts_of, scale_for, scales
from lra.strategies.methods import METHODS
from lra.strategies.retention import REPLAYS


def announced(config: RunConfig) -> Iterator[str]:
    """What is replayed; which scale or preset the settings lie over and why; and what of a preset was replaced.

    Raises:
        LraError: as `facts_of`.
    """
    yield _replayed(config)
    if config.preset in presets():
        yield from _preset(config, config.preset)
    if config.scale is not None:
        yield from _scale(config, config.scale)


def _replayed(config: RunConfig) -> str:
    name = config.replay["name"]
    meta = ", with the LRA step" if config.meta.enabled else ""
    own = ", as in its paper" if name == METHODS[config.method].memory else ""
    what = f": {REPLAYS[name].summary}" if name in REPLAYS else ""
    return f"method {config.method}, replay {name}{own}{meta}{what}"


def _preset(config: RunConfig, name: str) -> Iterator[str]:
    chosen = ", ".join(chosen_of(name))
    yield f"preset {name}: its numbers are {source_of(name)}" + (
        f", but for {chosen}, which are ours" if chosen else ""
    )
    if replaced := dropped(config, name):
        yield f"preset {name} is not for what was given: {replaced}; its other settings stay as they are"


def chosen_of(preset: str) -> list[str]:
    """What had to be chosen for a preset, beside what its paper says: options, or the section of more than two."""
    found = presets()[preset].get("chosen", {})
    return [
        name
        for section, options in found.items()
        for name in ([section] if len(options) > 2 else [f"{section}.{option}" for option in options])
    ]


def dropped(config: RunConfig, preset: str) -> str:
    """Which of the data and networks that a preset names a configuration has replaced, in words; empty if none."""
    found = {"data": config.data.name, "student": config.student.network}
    if config.teacher.file is None:  # What a file holds is known when it is read, see `unlike`.
        found["teacher"] = config.teacher.network
    return ", ".join(filter(None, (_replaced(preset, section, value) for section, value in found.items())))


def unlike(config: RunConfig, teacher: str) -> str:
    """A line on a file whose network ``teacher`` is not that of the preset; empty if it is."""
    if config.preset not in presets() or config.teacher.file is None:
        return ""
    replaced = _replaced(config.preset, "teacher", teacher)
    return f"preset {config.preset} is not for what was given: {replaced}" if replaced else ""


def _replaced(preset: str, section: str, value: str) -> str:
    wanted = settings_of(preset).get(section, {}).get("name" if section == "data" else "network")
    same = wanted is None or _plain(value) == _plain(wanted)
    return "" if same else f"{section} {value} in place of {wanted}"


def _scale(config: RunConfig, name: str) -> Iterator[str]:
    if name == PUBLISHED:
        if config.preset is None:
            yield f"scale {PUBLISHED}: the settings of the method's paper, whatever the data"
        return
    facts = facts_of(config.data, config.device)
    scale, fitting = scales().get(name), scale_for(facts).name
    if scale is not None:
        why = "" if fitting == name else f", for which {fitting} would be"
        yield f"scale {name}: {scale.summary} ({facts}{why}); {scale.cost}"


def _plain(name: str) -> str:
    return name.lower().replace("_", "-")
