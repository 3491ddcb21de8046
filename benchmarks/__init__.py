"""Experiments on all the rest: the ``lra-bench`` command, and the modules behind it."""
