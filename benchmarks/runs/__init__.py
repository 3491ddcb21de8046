"""One run: its folder, its training from start or checkpoint to result."""
