"""SimCLR (Section 3.1): the encoder f and the projection head g."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from flax import linen as nn
from jax import Array

from cradl_jax.models.encoder import Encoder


class SimCLR(nn.Module):
    """u = g(f(x)).

    Attributes:
        encoder: f, whose output is the representation that the densities model.
        head: widths of the projection head's hidden layer and output (512 and 256, Section 4.2).
    """

    encoder: Encoder
    head: Sequence[int] = (512, 256)

    if TYPE_CHECKING:
        __hash__ = nn.Module.__hash__  # flax makes one from the fields

    def setup(self) -> None:
        """Name the hidden layer and the output of the projection head."""
        hidden, output = self.head
        self.hidden, self.output = nn.Dense(hidden), nn.Dense(output)

    def encode(self, x: Array, train: bool = False) -> Array:
        """Map images [N, H, H] to representations z = f(x), [N, latent]."""
        return self.encoder(x, train)

    def __call__(self, x: Array, train: bool = False) -> Array:
        """Map images [N, H, H] to projections u = g(f(x)), [N, head[-1]]."""
        return self.output(nn.relu(self.hidden(self.encode(x, train))))
