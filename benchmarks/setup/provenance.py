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


def dropped(config: RunConfig, preset: str, teacher: str | None = None) -> str:
    """Which of the data and networks that a preset names a configuration has replaced, in words; empty if none.

    Args:
        config: resolved.
        preset: its name.
        teacher: the network found in the teacher's file, where that is known.
    """
    named = settings_of(preset)
    own = {"teacher": teacher or (None if config.teacher.file else config.teacher.network)}
    found = {"data": config.data.name, "student": config.student.network} | own
    pairs = [
        (section, named.get(section, {}).get("name" if section == "data" else "network"), value)
        for section, value in found.items()
    ]
    return ", ".join(
        f"{section} {value} in place of {wanted}"
        for section, wanted, value in pairs
        if wanted is not None and value is not None and _plain(value) != _plain(wanted)
    )


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
