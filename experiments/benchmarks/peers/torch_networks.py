"""The networks of Table 10 in PyTorch, with our weights."""

from collections.abc import Iterable, Sequence
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn
from torch.nn import functional

from cradl_jax.intensity import CLIP
from cradl_jax.models.sizes import levels
from experiments.benchmarks.timing import cores

torch.set_num_threads(cores())


def encoder(size: int, features: int, outputs: int) -> nn.Sequential:
    """Build the DC-Encoder: [N, 1, size, size] -> [N, outputs]."""
    layers, channels = [], 1
    for level in range(levels(size)):
        produced = features << level
        layers += [
            nn.Conv2d(channels, produced, 4, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(produced),
            nn.ReLU(inplace=True),
        ]
        channels = produced
    last = nn.Conv2d(channels, outputs, size >> levels(size))
    return nn.Sequential(*layers, last, nn.Flatten())


def decoder(size: int, features: int, latent: int) -> nn.Sequential:
    """Build the DC-Decoder: [N, latent, 1, 1] -> logits [N, 1, size, size]."""
    doublings = levels(size)
    channels = features << (doublings - 1)
    layers = [nn.ConvTranspose2d(latent, channels, size >> doublings, bias=False)]
    for level in reversed(range(doublings - 1)):
        produced = features << level
        layers += [
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
            nn.ConvTranspose2d(channels, produced, 4, stride=2, padding=1, bias=False),
        ]
        channels = produced
    last = nn.ConvTranspose2d(channels, 1, 4, stride=2, padding=1)
    return nn.Sequential(*layers, nn.BatchNorm2d(channels), nn.ReLU(inplace=True), last)


class SimCLR(nn.Module):
    """Encoder and projection head."""

    def __init__(self, size: int, features: int, latent: int, head: Sequence[int]):
        """Build the layers; the sizes are those of our network."""
        super().__init__()
        self.encoder = encoder(size, features, latent)
        hidden, output = head
        self.head = nn.Sequential(
            nn.Linear(latent, hidden), nn.ReLU(inplace=True), nn.Linear(hidden, output)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map slices [N, 1, H, H] to projections [N, head[-1]]."""
        return self.head(self.encoder(x))

    def load(self, params: dict) -> None:
        """Take the weights of our network."""
        load(self.encoder, params["encoder"], ("Down", "Collapse"))
        for name, linear in (("hidden", self.head[0]), ("output", self.head[2])):
            _copy(linear.weight, np.asarray(params[name]["kernel"]).T)
            _copy(linear.bias, params[name]["bias"])


class VAE(nn.Module):
    """Encoder and decoder."""

    def __init__(self, size: int, features: int, latent: int):
        """Build the layers; the sizes are those of our network."""
        super().__init__()
        self.encoder = encoder(size, features, 2 * latent)
        self.decoder = decoder(size, features, latent)

    def forward(self, x: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Map images [N, 1, H, H] and noise [N, latent] to reconstruction, mean, log-variance."""
        mean, log_variance = self.encoder(x).chunk(2, dim=1)
        z = mean + torch.exp(log_variance / 2) * noise
        logits = self.decoder(z[:, :, None, None])
        return CLIP * (2 * torch.sigmoid(logits) - 1), mean, log_variance

    def load(self, params: dict) -> None:
        """Take the weights of our network."""
        load(self.encoder, params["encoder"], ("Down", "Collapse"))
        load(self.decoder, params["decoder"], ("Expand", "Up"))


class UNet(nn.Module):
    """The U-Net that restores slices, without degrees."""

    def __init__(self, size: int, features: int):
        """Build the layers; the sizes are those of our network."""
        super().__init__()
        widths = [features << level for level in range(levels(size))]
        joined = [widths[-1], *(2 * width for width in widths[-2:0:-1])]  # by skips, but the first
        strided = {"kernel_size": 4, "stride": 2, "padding": 1}
        self.downs = nn.ModuleList(
            self._block(nn.Conv2d(before, after, **strided, bias=False))
            for before, after in pairwise([1, *widths])
        )
        self.ups = nn.ModuleList(
            self._block(nn.ConvTranspose2d(before, after, **strided, bias=False))
            for before, after in zip(joined, widths[-2::-1], strict=True)
        )
        self.last = nn.ConvTranspose2d(2 * features, 1, **strided)

    @staticmethod
    def _block(layer: nn.Module) -> nn.Sequential:
        channels = layer.weight.shape[isinstance(layer, nn.ConvTranspose2d)]
        return nn.Sequential(layer, nn.BatchNorm2d(channels), nn.ReLU(inplace=True))

    def forward(self, x: Tensor) -> Tensor:
        """Map slices [N, 1, H, H] to slices [N, 1, H, H]."""
        h, skips = x, []
        for down in self.downs:
            h = down(h)
            skips.append(h)
        for up, skip in zip(self.ups, skips[-2::-1], strict=True):
            h = torch.cat([up(h), skip], 1)
        return x + self.last(h)

    def load(self, params: dict) -> None:
        """Take the weights of our network."""
        load(self.modules(), params, ("Down", "Up"))


def nt_xent(u: Tensor, v: Tensor, temperature: float) -> Tensor:
    """Return the loss of equation 4, the mean over all views."""
    views = functional.normalize(torch.cat([u, v]), dim=1)
    logits = views @ views.T / temperature
    logits.fill_diagonal_(-torch.inf)
    positive = torch.arange(len(views)).roll(len(u))
    return functional.cross_entropy(logits, positive)


def elbo(x: Tensor, x_hat: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """Return the loss of equation 7 with beta 1, the mean over the batch."""
    rec = (x - x_hat).abs().sum()
    kl = 0.5 * (log_variance.exp() + mean**2 - 1 - log_variance).sum()
    return (rec + kl) / len(x)


def load(network: Iterable[nn.Module], params: dict, kinds: tuple[str, str]) -> None:
    """Copy the weights of one of our networks; `kinds` are its kinds of layers, in order."""
    network = list(network)
    kernels = [own for kind in kinds for own in _named(params, kind)]
    convolutions = [m for m in network if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
    for module, own in zip(convolutions, kernels, strict=True):
        _copy(module.weight, np.asarray(own["kernel"]).transpose(3, 2, 0, 1))
        if module.bias is not None:
            _copy(module.bias, own["bias"])
    norms = [m for m in network if isinstance(m, nn.BatchNorm2d)]
    for module, own in zip(norms, _named(params, "NormReLU"), strict=True):
        _copy(module.weight, own["BatchNorm_0"]["scale"])
        _copy(module.bias, own["BatchNorm_0"]["bias"])


def _named(params: dict, kind: str) -> list[dict]:
    """Return the parameters of the layers of a kind, in order."""
    return [params[name] for name in sorted(params) if name.startswith(f"{kind}_")]


def _copy(target: Tensor, values: ArrayLike) -> None:
    """Overwrite a tensor with values of the same shape."""
    with torch.no_grad():
        target.copy_(torch.tensor(np.array(values)))
