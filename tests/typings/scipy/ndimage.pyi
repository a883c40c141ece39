"""Types of what we use of scipy.ndimage, whose own are guessed from its defaults."""

from typing import Any

from numpy import ndarray
from numpy.typing import ArrayLike

def __getattr__(name: str) -> Any: ...
def binary_fill_holes(input: ArrayLike) -> ndarray: ...
def distance_transform_edt(input: ArrayLike, sampling: ArrayLike | None = ...) -> ndarray: ...
def zoom(
    input: ArrayLike,
    zoom: ArrayLike,
    *,
    order: int = ...,
    mode: str = ...,
    grid_mode: bool = ...,
) -> ndarray: ...
