"""What a run is judged by: evolution of accuracy, fidelity, forgetting, alignment of gradients."""
