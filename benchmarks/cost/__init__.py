"""What things cost: the meta step, the stream."""
