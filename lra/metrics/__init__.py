"""What a run is judged by: evolution of accuracy and forgetting, fidelity and alignment of gradients."""
