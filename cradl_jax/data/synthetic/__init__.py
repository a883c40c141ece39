"""Phantom brains, and anomalies put into healthy scans (Section 4.1)."""
