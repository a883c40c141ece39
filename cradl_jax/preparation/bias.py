"""Even out the brightness of a scan that its coil made uneven: N4 (Tustison et al., 2010)."""

import numpy as np

from cradl_jax.preparation.images import from_itk, itk, to_itk

WORKING_MM = 4.0  # voxels are skipped to about this size while the field is sought
SHARE = (5, 95)  # percentiles of the field within the brain that its strength is told by


def corrected(data: np.ndarray, brain: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, float]:
    """Divide a scan by its bias field.

    Args:
        data: [X, Y, Z] float32, not negative in the brain.
        brain: [X, Y, Z] bool, where the field is sought.
        affine: [4, 4] voxel indices to millimeters.

    Returns:
        [X, Y, Z] float32, and how much brighter the field made some of the brain than other, a
        ratio of its percentiles `SHARE`.
    """
    sitk = itk()
    image, mask = to_itk(np.maximum(data, 0), affine), to_itk(brain.astype(np.uint8), affine)
    steps = [max(1, round(WORKING_MM / spacing)) for spacing in image.GetSpacing()]
    search = sitk.N4BiasFieldCorrectionImageFilter()
    search.Execute(sitk.Shrink(image, steps), sitk.Shrink(mask, steps))
    field = np.exp(from_itk(search.GetLogBiasFieldAsImage(image)))
    low, high = np.percentile(field[brain], SHARE)
    return data / field, float(high / low)
