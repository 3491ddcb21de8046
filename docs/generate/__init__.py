"""Pages that are made from the code when the documentation is built, so that they cannot fall behind it."""
