"""Files that are whole or absent, checked when they are read."""
