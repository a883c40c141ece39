"""From a raw scan to a brain on a common grid: extraction, bias, alignment, and the way back."""
