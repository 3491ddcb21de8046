"""Runs side by side: groups, estimates over seeds, published numbers."""
