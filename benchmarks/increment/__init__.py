"""Class-incremental learning: the same benchmarks for Avalanche's strategies and for replay without data."""
