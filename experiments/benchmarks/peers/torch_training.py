"""Training steps of SimCLR, the VAE and the U-Net in PyTorch: forward, loss, backward, Adam."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from experiments.benchmarks.peers import torch_networks


class Training:
    """A network with its loss and optimizer."""

    def __init__(
        self,
        network: nn.Module,
        loss: Callable[..., Tensor],
        *,
        channels_last: bool,
        learning_rate: float,
        weight_decay: float,
    ):
        """Minimize `loss(network, *inputs)` by Adam, with L2 decay of the kernels alone."""
        layout = torch.channels_last if channels_last else torch.contiguous_format
        self.network, self.loss, self.layout = network.to(memory_format=layout), loss, layout
        parameters = list(network.parameters())
        groups = [
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
            {"params": [p for p in parameters if p.ndim == 1]},
        ]
        self.optimizer = torch.optim.Adam(groups, lr=learning_rate)

    def step(self, *inputs: Tensor) -> float:
        """Take a step; return the loss before it."""
        inputs = [x.to(memory_format=self.layout) if x.ndim == 4 else x for x in inputs]
        loss = self.loss(self.network, *inputs)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return float(loss.detach())


def simclr(
    params: dict, sizes: Sequence[int], head: tuple[int, int], temperature: float, **settings: Any
) -> Training:
    """Train SimCLR from our weights; a step takes both views. `sizes` are those of the encoder."""
    network = torch_networks.SimCLR(*sizes, head)
    network.load(params)

    def loss(network: nn.Module, first: Tensor, second: Tensor) -> Tensor:
        return torch_networks.nt_xent(network(first), network(second), temperature)

    return Training(network, loss, **settings)


def vae(params: dict, sizes: Sequence[int], **settings: Any) -> Training:
    """Train the VAE from our weights; a step takes images and the noise [N, latent]."""
    network = torch_networks.VAE(*sizes)
    network.load(params)

    def loss(network: nn.Module, x: Tensor, noise: Tensor) -> Tensor:
        return torch_networks.elbo(x, *network(x, noise))

    return Training(network, loss, **settings)


def unet(params: dict, sizes: Sequence[int], **settings: Any) -> Training:
    """Train a U-Net from our weights; a step takes images and their corruptions."""
    network = torch_networks.UNet(*sizes)
    network.load(params)

    def loss(network: nn.Module, x: Tensor, corrupted: Tensor) -> Tensor:
        return (x - network(corrupted)).square().mean()

    return Training(network, loss, **settings)


def tensors(arrays: Sequence) -> list[Tensor]:
    """Convert arrays to tensors, and images [N, H, W] to [N, 1, H, W]."""
    converted = [torch.tensor(np.asarray(array)) for array in arrays]
    return [x[:, None] if x.ndim == 3 else x for x in converted]
