"""Heatmaps of a slice's negative log-likelihood in PyTorch: autograd, unfold and median, conv."""

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from cradl_jax.densities import Density
from experiments.benchmarks.peers import torch_networks


class Mixture:
    """A Gaussian mixture as tensors."""

    def __init__(self, density: Density):
        """Convert our density, which must hold a mixture."""
        self.mean, self.scale, log_weights, self.means, self.factors = (
            torch.tensor(np.array(x)) for x in (density.mean, density.scale, *density.model)
        )
        log_determinants = torch.diagonal(self.factors, dim1=1, dim2=2).log().sum(1)
        constant = len(self.mean) / 2 * math.log(2 * math.pi) + self.scale.log().sum()
        self.constants = log_weights + log_determinants - constant

    def log_prob(self, z: Tensor) -> Tensor:
        """Return log p(z) [N] of representations [N, D]."""
        centered = ((z - self.mean) / self.scale)[None] - self.means[:, None]  # [K, N, D]
        distances = torch.bmm(centered, self.factors).square().sum(2)
        return torch.logsumexp(self.constants[:, None] - distances / 2, 0)


class Scorer:
    """An encoder and a mixture."""

    def __init__(self, params: dict, sizes: tuple[int, int, int], density: Density):
        """Load the `params` of our encoder; the batch statistics are the initial ones."""
        self.encoder = torch_networks.encoder(*sizes).eval().requires_grad_(False)
        torch_networks.load(self.encoder, params, ("Down", "Collapse"))
        self.mixture = Mixture(density)

    def __call__(self, images: np.ndarray, brains: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return scores [N] and post-processed heatmaps [N, H, W] of slices [N, H, W]."""
        x = torch.tensor(images)[:, None].requires_grad_()
        scores = -self.mixture.log_prob(self.encoder(x))
        (gradient,) = torch.autograd.grad(scores.sum(), x)
        heatmaps = torch.where(torch.tensor(brains)[:, None], gradient.abs(), 0)
        return scores.detach().numpy(), _gaussian(_median(heatmaps))[:, 0].numpy()


def _median(images: Tensor) -> Tensor:
    """Filter images [N, 1, H, W] by a 5x5 median."""
    windows = functional.unfold(functional.pad(images, (2, 2, 2, 2), "reflect"), 5)
    return windows.median(1).values.reshape(images.shape)


def _gaussian(images: Tensor) -> Tensor:
    """Smooth images [N, 1, H, W] with 7x7 taps and sigma 3, one axis at a time."""
    weights = torch.exp(-0.5 * ((torch.arange(7.0) - 3) / 3) ** 2)
    weights /= weights.sum()
    padded = functional.pad(images, (3, 3, 3, 3), "reflect")
    rows = functional.conv2d(padded, weights.reshape(1, 1, 7, 1))
    return functional.conv2d(rows, weights.reshape(1, 1, 1, 7))
