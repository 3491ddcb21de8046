"""Many runs: grids, engines, progress."""
