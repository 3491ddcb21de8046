"""What a run is made of: configuration, data sets, teachers, and their assembly."""
