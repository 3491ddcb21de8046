"""The parts of a run: configuration, data sets, teachers, and their assembly."""
