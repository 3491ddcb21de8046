"""Ordinary class-incremental benchmarks of Avalanche, with old classes replayed from the model alone."""
