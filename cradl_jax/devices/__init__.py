"""One device, many, or many processes: the same code path."""
