"""The training loop that every method shares (Section 4.3)."""
