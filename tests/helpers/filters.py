"""Oracles of the filters of Section 4.5."""

from scipy import ndimage


def scipy_median(images):
    return ndimage.median_filter(images, size=(1, 5, 5), mode="mirror")


def scipy_gaussian(images, sigma, taps):
    for axis in (1, 2):
        images = ndimage.gaussian_filter1d(images, sigma, axis, mode="mirror", radius=taps // 2)
    return images
