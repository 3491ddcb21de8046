"""Tasks in sequence: teachers one after another, each run starting from what the one before left."""
