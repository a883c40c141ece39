"""Files of scans: where they lie, who is in which split, their voxels."""
