"""From a scan's voxels to normalized axial slices (Section 4.1), and back."""
