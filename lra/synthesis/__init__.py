"""Making samples without data: sources, the losses that teach them, and where optimised images are kept."""
