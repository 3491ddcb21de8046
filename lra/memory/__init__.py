"""What replay remembers: bounded buffers, and a generator that remembers other generators."""
