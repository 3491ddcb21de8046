"""Closer looks at the teachers of finished runs, and at students trained on real images instead of synthetic ones."""
