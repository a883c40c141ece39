"""From a new scan to its anomaly map, slice scores and page."""
