"""What replay remembers: bounded buffers, a generator that remembers other generators, and where classes lie."""
