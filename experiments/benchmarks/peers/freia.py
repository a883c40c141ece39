"""RealNVP from the blocks of FrEIA in PyTorch, with our weights and our training settings."""

import math

import FrEIA.framework
import FrEIA.modules
import numpy as np
import torch
from torch import Tensor, nn

from cradl_jax.densities import realnvp


class Flow:
    """A flow with its optimizer; settings are those of `realnvp_fit.fit`."""

    def __init__(
        self,
        start: realnvp.RealNVP,
        *,
        learning_rate: float,
        weight_decay: float,
        noise: float,
        clip: float,
    ):
        """Take the weights and permutations of `start`."""
        size, hidden = start.permutations.shape[1], start.hidden_bias.shape[1]
        self.network = FrEIA.framework.SequenceINN(size)
        self.noise, self.clip = noise, clip
        for block in zip(*map(np.array, start), strict=True):
            self._append(block, hidden)
        self.parameters = [p for p in self.network.parameters() if p.requires_grad]
        self.optimizer = torch.optim.Adam(
            self.parameters, lr=learning_rate, weight_decay=weight_decay
        )

    def _append(self, block: tuple[np.ndarray, ...], hidden: int) -> None:
        """Append a coupling block and its permutation.

        FrEIA puts the log-scales first, ours the shifts.
        """
        order, hidden_kernel, hidden_bias, output_kernel, output_bias = block

        def conditioner(inputs: int, outputs: int) -> nn.Module:
            return nn.Sequential(
                nn.Linear(inputs, hidden), nn.ReLU(inplace=True), nn.Linear(hidden, outputs)
            )

        self.network.append(
            FrEIA.modules.AffineCouplingOneSided,
            subnet_constructor=conditioner,
            split_len=len(hidden_kernel),
            clamp=realnvp.CLAMP,
            clamp_activation=lambda u: torch.tanh(u / realnvp.CLAMP),
        )
        first, _, last = self.network[-1].subnet
        swapped = np.roll(np.arange(len(output_bias)), len(output_bias) // 2)
        self.network.append(FrEIA.modules.PermuteRandom)
        values = {
            first.weight: hidden_kernel.T,
            first.bias: hidden_bias,
            last.weight: output_kernel[:, swapped].T,
            last.bias: output_bias[swapped],
            self.network[-1].perm: order,
            self.network[-1].perm_inv: np.argsort(order),
        }
        with torch.no_grad():
            for target, value in values.items():
                target.copy_(torch.tensor(value.copy()))

    def step(self, z: Tensor) -> float:
        """Take a step on points [N, D]; return the mean negative log-likelihood before it."""
        z = z + self.noise * torch.randn_like(z)
        latent, log_determinant = self.network(z)
        constant = z.shape[1] / 2 * math.log(2 * math.pi)
        loss = (latent.square().sum(1) / 2 + constant - log_determinant).mean()
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters, self.clip)
        self.optimizer.step()
        return float(loss.detach())
