"""A memory of normal patches, as PatchCore has it (Roth et al. 2022, arXiv:2106.08265).

It keeps vectors of features of patches of healthy slices, and a patch is as far from normal as the
nearest of them. No position and no height enters: slices need not stand alike, as they must for
`densities.dense`, but what is normal in one place is normal everywhere.

The features are principal components as of `dense.principal`, with their mean over 3 x 3 patches in
place of each, as in PatchCore. Of a sample of them a coreset stays, chosen greedily. PatchCore
projects features at random for that choice (Johnson and Lindenstrauss); the components are few
enough already.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array, lax

matmul = partial(jnp.matmul, precision=lax.Precision.HIGHEST)  # no TF32 or bfloat16
LEVELS = 3  # of an encoder, whose maps are modelled: without positions deeper ones help
AT_ONCE = 2**22  # distances that exist at a time


class Memory(NamedTuple):
    """M vectors of normal patches, as a pytree of arrays.

    Attributes:
        projection: of a network's features onto C principal components, [F, C].
        vectors: [M, C].
    """

    projection: Array
    vectors: Array


def of_patches(projection: Array, features: Array) -> Array:
    """Return components [N, H, W, C] of features [N, H, W, F], each the mean over 3 x 3 patches.

    At the border it is the mean over those that exist.
    """
    components = matmul(features, projection)
    return nn.avg_pool(components, (3, 3), padding="SAME", count_include_pad=False)


@partial(jax.jit, static_argnames="count")
def coreset(key: Array, vectors: Array, count: int) -> Array:
    """Choose `count` of the vectors [N, C] so that every one is near one of them; their places.

    The first is drawn, and each further one is that which is farthest from all before. The greatest
    distance that is left is at most twice the smallest possible (Gonzalez 1985).
    """
    vectors = vectors - vectors.mean(0)
    squares = jnp.square(vectors).sum(1)

    def choose(place: Array, state: tuple[Array, Array]) -> tuple[Array, Array]:
        chosen, apart = state
        first = jax.random.randint(key, (), 0, len(vectors))
        new = jnp.where(place == 0, first, apart.argmax())
        from_new = squares - 2 * matmul(vectors, vectors[new]) + squares[new]
        return chosen.at[place].set(new), jnp.minimum(apart, from_new)

    nothing = jnp.zeros(count, jnp.int32), jnp.full(len(vectors), jnp.inf)
    return lax.fori_loop(0, count, choose, nothing)[0]


def nearest(vectors: Array, queries: Array) -> Array:
    """Return the distance of each query [N, C] to the nearest of the vectors [M, C], [N].

    By ||a||^2 + ||b||^2 - 2ab about the vectors' mean, so that float32 suffices, and a block of
    queries at a time: no more than four million distances exist at once, or M.
    """
    center = vectors.mean(0)
    vectors = vectors - center
    squares = jnp.square(vectors).sum(1)

    def of_query(query: Array) -> Array:
        least = (squares - 2 * matmul(vectors, query)).min()
        return jnp.sqrt(jnp.maximum(least + jnp.square(query).sum(), 0))

    return lax.map(of_query, queries - center, batch_size=max(1, AT_ONCE // len(vectors)))


def distance(memory: Memory, features: Array, images: Array) -> Array:
    """Return how far images [N, H, W] with features [N, G, G, F] are from normal, [N, H, W].

    It is the distance to the nearest vector, upsampled; a slice's does not depend on the others.
    """
    queries = of_patches(memory.projection, features)
    far = nearest(memory.vectors, queries.reshape(-1, queries.shape[-1]))
    return jax.image.resize(far.reshape(queries.shape[:3]), images.shape, "bilinear")
