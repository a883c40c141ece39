"""Stride-2 4x4 convolutions and their adjoints, each in the form its hardware runs fastest.

XLA's CPU convolution is slow inside `lax.scan`, where training steps run. There a convolution
becomes products of matrices (`down_winograd`), unless it is so small that these take longer to
compile than they save; elsewhere the native one is used. A convolution of one channel is a product
of patches everywhere: cuDNN has no fast form of it. All forms compute the same sums; `down` and
`up` choose among them when the step is lowered.
"""

import functools
import operator
from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

LAYOUT = ("NHWC", "HWIO", "NHWC")
SMALL = 100_000  # products of an image; a network of 16 channels at 64x64 pixels has 20 times more
POINTS = {1: (0,), 2: (0, 1), 4: (0, 1, -0.5, -2)}  # of those tried, the ones that round least


def down(x: Array, kernel: Array) -> Array:
    """Convolve with stride 2 and padding 1: [N, H, W, C] -> [N, H/2, W/2, O].

    H and W are even; `kernel` is [4, 4, C, O].
    """
    if kernel.shape[2] == 1:
        return down_patches(x, kernel)
    _, h, w, _ = x.shape
    on_cpu = _on_cpu(h * w // 4, kernel)
    return lax.platform_dependent(x, kernel, cpu=on_cpu, default=down_native)


def up(x: Array, kernel: Array) -> Array:
    """Convolve transposed, with stride 2 and padding 1: [N, H, W, C] -> [N, 2H, 2W, O].

    `kernel` [4, 4, O, C] is that of the convolution whose adjoint this is.
    """
    if kernel.shape[2] == 1:
        return adjoint(down_patches, x, kernel)
    _, h, w, _ = x.shape
    on_cpu = partial(adjoint, _on_cpu(h * w, kernel))
    return lax.platform_dependent(x, kernel, cpu=on_cpu, default=partial(adjoint, down_native))


def _on_cpu(points: int, kernel: Array) -> Callable[[Array, Array], Array]:
    """Return the form of `down` for so many points of the smaller side and a kernel."""
    return down_native if points * kernel.size < SMALL else down_winograd


def down_native(x: Array, kernel: Array) -> Array:
    """Compute `down` as one convolution of XLA."""
    return lax.conv_general_dilated(x, kernel, (2, 2), ((1, 1), (1, 1)), dimension_numbers=LAYOUT)


def down_patches(x: Array, kernel: Array) -> Array:
    """Compute `down` of one channel in one product: Winograd's would be too thin to be fast."""
    n, h, w, _ = x.shape
    blocks = _blocks(x)[..., 0]
    corners = [blocks[:, i : i + h // 2, :, j : j + w // 2] for i in (0, 1) for j in (0, 1)]
    patches = jnp.stack(corners).reshape(2, 2, n, h // 2, 2, w // 2, 2)
    patches = patches.transpose(2, 3, 5, 0, 4, 1, 6).reshape(-1, 16)
    return (patches @ kernel.reshape(16, -1)).reshape(n, h // 2, w // 2, -1)


@jax.jit  # traced once for all that is compiled with it
def down_winograd(x: Array, kernel: Array) -> Array:
    """Compute `down` in 6.25 or 9 matrix products instead of 16, by Winograd's minimal filtering.

    Where a side is no multiple of 4, nothing is saved: the products are those of the taps.

    Over blocks of 2x2 pixels, 4 C numbers each, the convolution has 2x2 taps and stride 1. That is
    a filter of two taps along the rows, whose products are filters of two taps along the columns,
    whose products are those of matrices [pixels, 4 C] and [4 C, O]; see `_filter`.
    """
    n, h, w, c = x.shape
    outputs = _outputs(h, w, c)
    blocks = _blocks(x).swapaxes(2, 3)  # [n, h/2 + 1, w/2 + 1, 2, 2, c]: runs of c are vectorized
    taps = kernel.reshape(2, 2, 2, 2, c, -1).transpose(0, 2, 1, 3, 4, 5).reshape(2, 2, 4 * c, -1)

    def product(block: Array, tap: Array) -> Array:
        shape = n, h // outputs // 2, w // outputs // 2, -1
        return (block.reshape(-1, 4 * c) @ tap).reshape(shape)

    along_columns = partial(_filter, axis=2, outputs=outputs, multiply=product)
    y = _filter(blocks, taps, axis=1, outputs=outputs, multiply=along_columns)
    return y.reshape(n, h // 2, w // 2, -1)


def _filter(
    blocks: Array,
    taps: Array,
    axis: int,
    outputs: int,
    multiply: Callable[[Array, Array], Array],
) -> Array:
    """Filter blocks d along an axis by two taps g, `outputs` (m) results from m + 1 products.

        A^T [(G g) * (B^T d)]

    m results side by side see m + 1 blocks. This is Winograd's minimal filtering F(m, 2) (Lavin and
    Gray, arXiv:1509.09308), and Toom and Cook's multiplication transposed.

    Args:
        blocks: [..., count m + 1, ...] along `axis`.
        taps: [2, ...].
        axis: along which to filter.
        outputs: m.
        multiply: the product `*` of a linear form of the blocks with one of the taps.

    Returns:
        What `multiply` gives, [..., count, ...], with an axis [m] after `axis`.
    """
    of_outputs, of_taps, of_blocks = _matrices(outputs)
    products = map(
        multiply,
        _combine(of_blocks, _windows(blocks, axis, outputs)),
        _combine(of_taps, _unstack(taps, 0)),
    )
    return jnp.stack(_combine(of_outputs, list(products)), axis + 1)


def _outputs(height: int, width: int, channels: int) -> int:
    """Choose m, which divides the output's sides: 4, but 2 for fewer pixels than channels.

    There the (m + 1)^2 forms of the kernel cost more than fewer products save.
    """
    if height % 4 or width % 4:
        return 1
    divides = height % 8 == 0 == width % 8
    return 4 if divides and height * width >= channels else 2


@functools.cache
def _matrices(outputs: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return A^T [m, m + 1], G [m + 1, 2] and B^T [m + 1, m + 1] of `_filter`."""

    def values(count: int) -> np.ndarray:
        """Turn `count` coefficients of a polynomial to its values at the points and infinity."""
        finite = np.vander(POINTS[outputs], count, increasing=True)
        return np.append(finite, np.eye(count)[-1:], axis=0)

    coefficients = np.linalg.inv(values(outputs + 1)).round(12)  # zeros are zeros
    return values(outputs).T, values(2), coefficients.T


def _combine(matrix: np.ndarray, arrays: Sequence[Array]) -> list[Array]:
    """Multiply `matrix` with a vector of arrays."""
    return [
        functools.reduce(
            operator.add, [float(c) * a for c, a in zip(row, arrays, strict=True) if c]
        )
        for row in matrix
    ]


def _windows(blocks: Array, axis: int, outputs: int) -> list[Array]:
    """Return the m + 1 blocks along an axis which m (`outputs`) results side by side see.

    The first is that of every m-th position, the last the first of the next window.
    """
    before, after = blocks.shape[:axis], blocks.shape[axis + 1 :]
    count = (blocks.shape[axis] - 1) // outputs
    widths = [(0, outputs - 1) if a == axis else (0, 0) for a in range(blocks.ndim)]
    tiles = jnp.pad(blocks, widths).reshape(*before, count + 1, outputs, *after)
    first, *others = _unstack(tiles, axis + 1)
    inner = [lax.slice_in_dim(d, 0, count, axis=axis) for d in (first, *others)]
    return [*inner, lax.slice_in_dim(first, 1, count + 1, axis=axis)]


def _unstack(x: Array, axis: int) -> list[Array]:
    """Return the arrays along an axis.

    The gradient of `lax.split` is one concatenation; that of indexing is a sum of padded arrays,
    for which a CPU visits pixels one by one.
    """
    parts = lax.split(x, (1,) * x.shape[axis], axis)
    return [lax.squeeze(part, (axis,)) for part in parts]


def _blocks(x: Array) -> Array:
    """Pad images by 1 and cut them into blocks of 2x2 pixels, [N, H/2 + 1, 2, W/2 + 1, 2, C]."""
    n, h, w, c = x.shape
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    return padded.reshape(n, h // 2 + 1, 2, w // 2 + 1, 2, c)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def adjoint(down: Callable[[Array, Array], Array], x: Array, kernel: Array) -> Array:
    """Apply the adjoint of a form of `down`; its gradient is written out as that of the form.

    cuDNN has fast kernels for the latter, which XLA does not find in the automatic gradient.
    """
    n, h, w, _ = x.shape
    anything = jnp.zeros((n, 2 * h, 2 * w, kernel.shape[2]), x.dtype)  # `down` is linear in it
    _, pullback = jax.vjp(lambda y: down(y, kernel), anything)
    return pullback(x)[0]


def _adjoint_forward(down, x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    return adjoint(down, x, kernel), (x, kernel)


def _adjoint_backward(down, inputs: tuple[Array, Array], gradient: Array) -> tuple[Array, Array]:
    x, kernel = inputs
    of_x, pullback = jax.vjp(lambda kernel: down(gradient, kernel), kernel)
    return of_x, pullback(x)[0]


adjoint.defvjp(_adjoint_forward, _adjoint_backward)
