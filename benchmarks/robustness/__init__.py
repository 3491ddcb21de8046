"""What a run withstands: kills at random moments, generated bad input, a long life."""
