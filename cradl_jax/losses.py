"""The training losses. Each returns the scalar to minimise and a dictionary of its terms."""

import jax.numpy as jnp
import optax
from jax import Array, lax


def nt_xent(
    u: Array, v: Array, temperature: float = 0.5, axis_name: str | None = None
) -> tuple[Array, dict[str, Array]]:
    """NT-Xent (equation 4), the mean over all views of all devices once averaged over them.

    Each view's positive is the other view of its image; the denominator runs over all 2N - 1
    other views, the positive included.

    Args:
        u: projections of the first views, [n, D]; they need not be normalised.
        v: projections of the second views, [n, D].
        temperature: tau.
        axis_name: device axis over which N = devices * n images are contrasted; None: N = n.

    Returns:
        The loss over the local 2n views, and the share of them whose most similar view is
        their positive (`accuracy`).
    """
    u, v = (x / jnp.maximum(jnp.linalg.norm(x, axis=-1, keepdims=True), 1e-8) for x in (u, v))
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
