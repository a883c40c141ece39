"""Some slices of a store, read when they are asked for."""

from dataclasses import dataclass

import numpy as np

from cradl_jax.data.slices import SliceStore


@dataclass(frozen=True)
class Selected:
    """The images of some rows of a store, as an array [N, H, W] that is not in memory."""

    store: SliceStore
    rows: np.ndarray

    def __len__(self) -> int:
        """N."""
        return len(self.rows)

    def __getitem__(self, chosen: np.ndarray | slice) -> np.ndarray:
        """The chosen images [n, H, W] in memory; the mapped file takes none of it after."""
        images = self.store.images[self.rows[chosen]]
        self.store.release()
        return images
