"""Small scans for the tests: a lumpy ellipsoid on a zero background, in memory and as a file."""

import sys
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.affines import voxel_sizes

from cradl_jax.data.scans.headers import Origin
from cradl_jax.data.scans.volumes import Volume

THRESHOLD = f"""{sys.executable} -c "
import nibabel, sys
image = nibabel.load(sys.argv[1])
brain = (image.get_fdata() > 30).astype('uint8')
nibabel.save(nibabel.Nifti1Image(brain, image.affine), sys.argv[2])" {{input}} {{output}}"""
"""A tool for brain extraction, which finds a bright brain in dim surroundings."""


def brain(shape=(20, 24, 16), seed=0) -> np.ndarray:
    """Return [X, Y, Z] float32 with values in (50, 150) inside an ellipsoid, 0 outside."""
    grid = np.stack(np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij"))
    inside = (grid**2).sum(0) < 0.7
    values = np.random.default_rng(seed).uniform(50, 150, shape)
    return np.where(inside, values, 0).astype(np.float32)


def head(shape=(20, 24, 16), seed=0) -> np.ndarray:
    """Return a scan [X, Y, Z] float32 that is not brain-extracted: around the brain is tissue."""
    tissue = np.random.default_rng(seed + 1).uniform(1, 40, shape)
    return np.maximum(brain(shape, seed), tissue).astype(np.float32)


def write(path: Path, data: np.ndarray, affine=None) -> Path:
    """Write a NIfTI volume, its folders too."""
    path.parent.mkdir(parents=True, exist_ok=True)
    affine = np.diag([2.0, 2.0, 2.0, 1.0]) if affine is None else affine
    nib.save(nib.Nifti1Image(data, affine), path)
    return path


def volume(data: np.ndarray, affine, states_orientation=True) -> Volume:
    """Return what `read_volume` makes of a file whose axes point to R, A and S."""
    data, affine = np.asarray(data, np.float32), np.asarray(affine, float)
    header = nib.Nifti1Image(data, affine).header
    upright = np.array([[0, 1], [1, 1], [2, 1]])
    origin = Origin(Path("scan.nii"), data.shape, affine, upright, header, states_orientation)
    return Volume(data, affine, tuple(map(float, voxel_sizes(affine))), origin)
