"""The parts of `experiments.benchmark`: ours and what a user would take instead, timed in turn."""
