"""Sizes of images that the network of Table 10 takes: a side of 4 to 7 pixels, doubled."""


def levels(size: int) -> int:
    """Count the stride-2 convolutions that bring an image of `size` pixels to 4, 5, 6 or 7.

    128 pixels take the five of Table 10, 64 take four; `size >> levels(size)` is the last side.

    Raises:
        ValueError: `size` is not 8, 10, 12, 14, 16, 20, 24, 28, 32, ...
    """
    if size not in nearest(size):
        raise ValueError(f"image size: expected {expected(size)}, found {size}")
    return size.bit_length() - 3


def nearest(size: int) -> tuple[int, ...]:
    """Return the sizes next to `size` that the network takes, ascending; itself where it is one."""
    if size < 8:
        return (8,)
    step = 1 << size.bit_length() - 3
    below = size - size % step
    return (below,) if below == size else (below, below + step)


def expected(size: int) -> str:
    """Return what a size must be, in words, with the nearest to `size`."""
    *below, last = nearest(size)
    close = "".join(f"{one} and " for one in below) + str(last)
    are = "are" if below else "is"
    return f"4, 5, 6 or 7 times a power of two, from 8 on (the nearest {are} {close})"
