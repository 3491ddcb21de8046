"""``lra-bench list options``: every key of ``--set`` is described, and the JSON Schema takes what a run takes."""

import json
from collections.abc import Callable
from typing import Any

import pytest
import yaml

from lra import __version__
from lra.benchmarks.errors import UsageError
from lra.benchmarks.setup.layers import all_keys
from lra.benchmarks.setup.presets import presets
from lra.benchmarks.setup.resolution import configuration
from lra.benchmarks.setup.schema import alone, described, groups, json_schema, keys, sections
from lra.strategies.methods import METHODS
from lra.strategies.retention import REPLAYS


def test_every_key_that_set_takes_is_listed_with_its_meaning(lra_bench: Callable[..., Any]) -> None:
    listed = json.loads(lra_bench("list", "options", "--json").out)
    found = {key: option for group in listed.values() for key, option in group.items()}
    optional = {"quantization", "carry", "code"}  # Groups that a configuration may lack: their keys stand for them.
    assert set(all_keys()) - optional - set(found) == set()
    assert set(keys()) <= set(found)
    lacking = [key for key, option in found.items() if not option["meaning"] or not option["values"]]
    assert not lacking


def test_a_name_asks_for_one_group() -> None:
    assert len(groups()) == len(sections()) + len(METHODS) + len(REPLAYS) + 1, "no name stands for two"


@pytest.mark.parametrize("name", [option.key for option in alone() if option.default] + ["student.lr", "meta.alpha"])
def test_a_listed_default_may_be_given(name: str) -> None:
    every = [*alone(), *(o for of, (prefix, group) in groups().items() for o in described(group, prefix))]
    default = next(option.default for option in every if option.key == name)
    assert configuration(set=[f"{name}={default}"])


def test_one_group_is_listed_alone(lra_bench: Callable[..., Any]) -> None:
    text = lra_bench("list", "options", "student").out
    assert "student.lr  number > 0  [0.1]" in text
    assert "synthesis." not in text
    assert "synthesis.bn_gap  l2, mse, kl  [l2]" in lra_bench("list", "options", "dfq").out
    assert "generator_steps  integer ≥ 1  [1000]" in lra_bench("list", "options", "increment").out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["options", "stdent"], "did you mean 'student'"),
        (["methods", "student"], "leave it out"),
        (["methods", "--schema"], "leave it out"),
        (["options", "student", "--schema"], "leave 'student' out"),
    ],
)
def test_a_wrong_question_is_one_line(arguments: list[str], said: str, lra_bench: Callable[..., Any]) -> None:
    done = lra_bench("list", *arguments)
    assert done.code == 2
    assert said in done.err


def refs(tree: Any) -> Any:
    if isinstance(tree, dict):
        yield from [tree["$ref"]] if "$ref" in tree else []
        for inner in tree.values():
            yield from refs(inner)
    elif isinstance(tree, list):
        for inner in tree:
            yield from refs(inner)


def test_the_schema_says_its_version_and_is_whole(lra_bench: Callable[..., Any]) -> None:
    schema = json.loads(lra_bench("list", "options", "--schema").out)
    assert schema == json_schema()
    assert __version__ in schema["title"]
    assert set(refs(schema)) <= {f"#/$defs/{name}" for name in schema["$defs"]}
    options = schema["$defs"]["method.dfq"]["properties"]
    assert options["balance"]["minimum"] == 0
    assert options["balance"]["default"] == 20.0
    assert options["balance"]["description"] == {o.key: o.meaning for o in described(METHODS["dfq"].Options)}["balance"]


ACCEPTED: list[dict[str, Any]] = [
    {},
    {"method": "dafl", "replay": "memory", "meta": True, "data": "digits", "student": "mlp"},
    {"replay": {"name": "memory", "capacity": 10}} if "capacity" in REPLAYS["memory"].model_fields else {},
    {"replay": {"name": "avalanche:replay"}, "plugin": {"use": ["avalanche:ewc"], "ewc_lambda": 0.4}},
    {"preset": "lra-mb/digits", "synthesis": {"one_hot": 2.0}},
]
REFUSED: list[dict[str, Any]] = [
    {"methd": "dafl"},
    {"method": "fats"},
    {"student": {"lr": -1}},
    {"student": {"lrr": 1}},
    {"method": "dafl", "synthesis": {"bn_gap": "kl"}},
    {"replay": {"name": "none", "capacity": 3}},
    {"quantization": {"weight_bits": 9}},
    {"schedule": {"steps": "many"}},
]


def test_the_schema_takes_and_refuses_what_a_run_does() -> None:
    validator = pytest.importorskip("jsonschema").Draft202012Validator
    schema = json_schema()
    validator.check_schema(schema)
    check = validator(schema)
    for tree in [*ACCEPTED, *({k: v for k, v in preset.items() if k != "chosen"} for preset in presets().values())]:
        assert not [error.message for error in check.iter_errors(tree)], tree
    for method in METHODS:
        for replay in REPLAYS:
            tree = yaml.safe_load(yaml.safe_dump(configuration(method=method, replay=replay).tree()))
            assert not [error.message for error in check.iter_errors(tree)], (method, replay)
    for tree in REFUSED:
        assert list(check.iter_errors(tree)), tree
        with pytest.raises(UsageError):
            configuration(set=[f"{key}={json.dumps(value)}" for key, value in tree.items()])
