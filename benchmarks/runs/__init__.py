"""One run: its folder, and its training from the start or a checkpoint to the result."""
