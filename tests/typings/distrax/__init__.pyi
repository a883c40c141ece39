"""Types of what we use of distrax: arrays are JAX's, whereas its own may be NumPy's."""

from typing import Any

from jax import Array

class Bijector:
    def forward_and_log_det(self, x: Array) -> tuple[Array, Array]: ...
    def inverse(self, y: Array) -> Array: ...

def __getattr__(name: str) -> Any: ...
