"""Loading and preprocessing of scans by MONAI, with worker processes."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from monai import transforms
from monai.data import DataLoader, Dataset
from numpy.lib.format import open_memmap

from cradl_jax.intensity import CLIP


class Loader:
    """A loader whose worker processes persist between passes over the scans."""

    def __init__(self, scans: Sequence[Path], size: int, workers: int):
        """Set up slices of `size` x `size` pixels and as many processes as `workers`."""
        steps = [
            transforms.LoadImage(image_only=True, ensure_channel_first=True),
            transforms.Orientation("RAS", labels=None),
            transforms.NormalizeIntensity(nonzero=True),
            transforms.ScaleIntensityRange(-CLIP, CLIP, -CLIP, CLIP, clip=True),
            transforms.Resize((size, size, -1), mode="area"),
            transforms.ToTensor(track_meta=False),
        ]
        self.size = size
        self.scans = DataLoader(
            Dataset(list(map(str, scans)), transforms.Compose(steps)),
            batch_size=1,
            num_workers=workers,
            multiprocessing_context="spawn",
            persistent_workers=True,
        )

    def write(self, path: Path, offset: int, count: int) -> np.ndarray:
        """Write all slices but `offset` at each end, `count` a scan, to an .npy file.

        Rows start at the front, columns at the patient's right, as in ours. Return the slices
        [N, size, size], memory-mapped.
        """
        shape = (len(self.scans), count, self.size, self.size)
        slices = open_memmap(path, mode="w+", dtype=np.float32, shape=shape)
        for number, batch in enumerate(self.scans):
            volume = batch[0, 0].flip(0, 1)
            slices[number] = volume[..., offset : offset + count].permute(2, 1, 0).numpy()
        slices.flush()
        return slices.reshape(-1, self.size, self.size)
