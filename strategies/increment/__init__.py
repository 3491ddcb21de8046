"""Class-incremental learning on ordinary Avalanche benchmarks, with old classes replayed from the model alone."""
