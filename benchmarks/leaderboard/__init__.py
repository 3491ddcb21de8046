"""What cells came to, a row each, in the CSV files that lie here; made of finished sweeps, and measured again."""
