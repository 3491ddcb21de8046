"""Bad input of every kind, generated: the long version is a command, see `lra.benchmarks.robustness.bad_input`."""

from lra.benchmarks.robustness.bad_input import attempt, commands


def test_bad_input_ends_in_one_line_and_writes_nothing() -> None:
    tally = attempt(300)
    assert sum(tally.codes.values()) >= 250, "some are tried twice"
    assert set(tally.codes) <= {0, 2, 3}
    assert tally.codes[2] + tally.codes[3] > 3 * tally.codes[0]
    tried = {name for name in tally.used if tally.used[name]}
    assert len(tried & {" ".join(path) for path, _ in commands()}) > 5
