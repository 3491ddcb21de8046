"""``lra-bench list``: what there is to choose from."""

import json

import click


@click.command(name="list")
@click.argument("what", type=click.Choice(["methods", "replays", "presets", "scales", "datasets", "models", "plugins"]))
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
def list_(what: str, as_json: bool) -> None:
    """List what there is to choose from."""
    from lra.benchmarks.commands.summary import catalogue

    entries = catalogue(what)
    if as_json:
        click.echo(json.dumps(entries, indent=2))
    else:
        width = max(map(len, entries), default=0)
        click.echo("\n".join(f"{name:{width}}  {text}".rstrip() for name, text in entries.items()))
