"""Closer looks: at the teachers of finished runs, and at what real images would give in place of synthetic ones."""
