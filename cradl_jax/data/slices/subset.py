"""Some rows of a memory-mapped array of slices, read when they are asked for."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class SliceSubset:
    """The images of some rows of a store, like an array [N, H, W] that is not in memory."""

    mapped: np.memmap
    rows: np.ndarray

    def __len__(self) -> int:
        """Return N."""
        return len(self.rows)

    def __getitem__(self, chosen: np.ndarray | slice) -> np.ndarray:
        """Read the chosen images [n, H, W] from the file.

        Its mapping would read ahead of each slice, megabytes that a random order does not need.
        """
        mapped, rows = self.mapped, self.rows[chosen]
        images = np.empty((len(rows), *mapped.shape[1:]), mapped.dtype)
        with Path(str(mapped.filename)).open("rb", buffering=0) as file:
            for image, row in zip(images, rows, strict=True):
                file.seek(mapped.offset + int(row) * image.nbytes)
                file.readinto(image)
        return images
