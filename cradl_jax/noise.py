"""Gaussian noise: the numbers of `jax.random.normal`, several times as fast on a CPU.

There JAX keeps the rounds of its generator in a loop, which passes all numbers through memory at
each turn. Written out, the rounds fuse with whatever uses the noise.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

ROTATIONS = (13, 15, 26, 6), (17, 29, 16, 24)
PARITY = np.uint32(0x1BD11BDA)
ONE = np.uint32(0x3F800000)  # the bits of 1.0
LOWEST = np.nextafter(np.float32(-1), np.float32(0))


def normal(key: Array, shape: tuple[int, ...]) -> Array:
    """Standard normal float32 of a shape with fewer than 2^32 elements; `key` is of threefry."""
    from_one_to_two = lax.bitcast_convert_type(bits(key, shape) >> 9 | ONE, jnp.float32)
    uniform = jnp.maximum((from_one_to_two - 1) * (1 - LOWEST) + LOWEST, LOWEST)
    return np.float32(2**0.5) * lax.erf_inv(uniform)


def bits(key: Array, shape: tuple[int, ...]) -> Array:
    """Random uint32, as `jax.random.bits`: Threefry-2x32 of each element's number, 20 rounds.

    (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011.)
    """
    first, second = jax.random.key_data(key)[:2]
    keys = (first, second, first ^ second ^ PARITY)
    left = jnp.broadcast_to(first, shape)
    right = lax.iota(jnp.uint32, math.prod(shape)).reshape(shape) + second
    for turn in range(5):
        for rotation in ROTATIONS[turn % 2]:
            left = left + right
            right = (right << rotation | right >> 32 - rotation) ^ left
        left = left + keys[(turn + 1) % 3]
        right = right + keys[(turn + 2) % 3] + np.uint32(turn + 1)
    return left ^ right
