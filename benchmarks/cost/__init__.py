"""What things cost: the LRA step, the stream, checkpoints, start-up."""
