"""What the papers show beside accuracy: convergence of generators, teachers' answers, bit-flip attacks."""
