"""What runs withstand: kills at random moments, generated bad input, changes that should not change results."""
