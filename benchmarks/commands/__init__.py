"""The commands of ``lra-bench``."""
