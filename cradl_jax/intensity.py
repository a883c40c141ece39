"""The range of normalized slices, which the method and its data share (Section 4.1)."""

CLIP = 1.5
"""z-scores over the brain lie in [-CLIP, CLIP]; what lies beyond is clipped."""
