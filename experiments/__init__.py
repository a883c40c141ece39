"""Entry points: each loads, calls the library, and saves."""
