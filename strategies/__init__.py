"""Data-free distillation inside Avalanche: the stream, the strategy, retention plugins and methods."""
