"""The training losses. Each returns the scalar to minimize and a dictionary of its terms."""

import functools
import math

import jax
import jax.numpy as jnp
import optax
from jax import Array, lax

from cradl_jax.models.vae import Posterior
from cradl_jax.ops.filters import smooth_maps

WINDOW, SIGMA = 5, 1.5  # side and deviation of the Gaussian window of `ssim`, in pixels
LUMINANCE, CONTRAST = 0.01**2, 0.03**2  # C1 and C2 of `ssim`
MAPS_AT_ONCE = 4  # on a CPU
SMOOTH = 1e-6  # of `total_variation`, squared units of the image, far below noise


def nt_xent(
    u: Array, v: Array, temperature: float = 0.5, axis_name: str | None = None
) -> tuple[Array, dict[str, Array]]:
    """Compute NT-Xent (equation 4); its mean over the devices is that over all views.

    Each view's positive is the other view of its image; the denominator runs over all 2N - 1
    other views, the positive included.

    Args:
        u: projections of the first views, [n, D]; they need not be normalized.
        v: projections of the second views, [n, D].
        temperature: tau.
        axis_name: device axis over which N = devices * n images are contrasted; None: N = n.

    Returns:
        The loss over the local 2n views, and the share of them whose most similar view is
        their positive (`accuracy`).
    """
    u, v = _unit(u), _unit(v)
    n, first = len(u), 0
    everyone_u, everyone_v = u, v
    if axis_name is not None:
        everyone_u, everyone_v = lax.all_gather((u, v), axis_name, tiled=True)
        first = lax.axis_index(axis_name) * n
    total = len(everyone_u)

    views = jnp.concatenate([u, v])
    similarity = views @ jnp.concatenate([everyone_u, everyone_v]).T / temperature  # [2n, 2N]
    mine = first + jnp.arange(n)
    itself = jnp.concatenate([mine, mine + total])
    positive = jnp.concatenate([mine + total, mine])
    logits = jnp.where(jnp.arange(2 * total) == itself[:, None], -jnp.inf, similarity)
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, positive).mean()
    return loss, {"accuracy": (logits.argmax(-1) == positive).mean()}


def _unit(x: Array) -> Array:
    """Scale vectors [n, D] to length 1; 0, which a small head may give, stays 0 with gradient 0."""
    squared = (x**2).sum(-1, keepdims=True)
    return jnp.where(squared > 0, x / jnp.sqrt(jnp.where(squared > 0, squared, 1)), 0)


def reconstruction(x: Array, x_hat: Array) -> Array:
    """Compute L_Rec, the L1 distance summed over the pixels of each image [N, H, W]: [N]."""
    return jnp.abs(x - x_hat).sum((1, 2))


def squared_error(x: Array, x_hat: Array, where: Array | None = None) -> Array:
    """Compute the mean squared error over all pixels of a batch [N, H, W], or those of a mask."""
    return ((x - x_hat) ** 2).mean(where=where)


def total_variation(x: Array) -> Array:
    """Compute the total variation of each image [N, H, W], the sum of its gradient's length: [N].

    Differences are those to the next pixel, and lengths smooth at 0.
    """
    down, right = jnp.diff(x, axis=1)[:, :, :-1], jnp.diff(x, axis=2)[:, :-1]
    return jnp.sqrt(down**2 + right**2 + SMOOTH).sum((1, 2))


def ssim(x: Array, y: Array) -> Array:
    """Compute the structural similarity of maps [N, H, W, C] around each point of each channel.

    Means, variances and covariance are those of a Gaussian window (Wang et al. 2004, IEEE TIP 13),
    reflected at the border. C1 and C2 are for maps of about unit deviation.

    Returns:
        [N, H, W, C], 1 where both are the same, lower elsewhere, at least -1.
    """
    return lax.platform_dependent(x, y, cpu=_ssim_in_parts, default=_ssim)


def _ssim_in_parts(x: Array, y: Array) -> Array:
    """Compute `ssim` of a few maps at a time, which stay in a CPU's cache."""
    at_once = math.gcd(len(x), MAPS_AT_ONCE)
    parts = (one.reshape(-1, at_once, *one.shape[1:]) for one in (x, y))
    return lax.map(lambda part: _ssim(*part), tuple(parts)).reshape(x.shape)


@jax.checkpoint
def _ssim(x: Array, y: Array) -> Array:
    """Compute `ssim`; its gradient does so again, which is faster than to keep the terms."""
    smooth = functools.partial(smooth_maps, sigma=SIGMA, taps=WINDOW)
    mean_x, mean_y, squares, product = map(smooth, (x, y, x**2 + y**2, x * y))
    means, mean_product = mean_x**2 + mean_y**2, mean_x * mean_y
    luminance = (2 * mean_product + LUMINANCE) / (means + LUMINANCE)
    structure = (2 * (product - mean_product) + CONTRAST) / (squares - means + CONTRAST)
    return luminance * structure


def kl_divergence(posterior: Posterior) -> Array:
    """Compute D_KL(q(z|x) || N(0, I)), summed over the dimensions: [N]."""
    mean, log_variance = posterior
    return 0.5 * (jnp.exp(log_variance) + mean**2 - 1 - log_variance).sum(-1)


def elbo(
    x: Array, x_hat: Array, posterior: Posterior, beta: float = 1.0
) -> tuple[Array, dict[str, Array]]:
    """Compute L_VAE = L_Rec + beta * D_KL (equation 7), the mean over the batch [N, H, W]."""
    rec, kl = reconstruction(x, x_hat).mean(), kl_divergence(posterior).mean()
    return rec + beta * kl, {"rec": rec, "kl": kl}
