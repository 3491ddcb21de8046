"""The methods, one short file each: how samples are made. What the student keeps of them is another axis."""

from lra.strategies.method import Method
from lra.strategies.methods.predfkd import PreDFKD

METHODS: dict[str, type[Method]] = {method.name: method for method in (PreDFKD,)}
"""Name to method, in the order they are listed."""
