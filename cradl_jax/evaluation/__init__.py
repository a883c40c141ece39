"""How well scores tell anomalous slices and voxels from normal ones (Section 4.6)."""
