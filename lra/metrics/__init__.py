"""The metrics of a run: evolution of accuracy, forgetting, fidelity and gradient alignment."""
