"""Memories for replay: bounded buffers, and a generator that remembers the samples of another one."""
