"""Students as files for use elsewhere."""
