"""CRADL in JAX: contrastive representations for unsupervised anomaly detection and localization.

import cradl_jax
run = cradl_jax.load_run("runs/phantom/seed0/cradl")
run.predict("scan.nii.gz").save("prediction")

JAX and the networks are imported when one of these names is first used.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cradl_jax.runs import Run, ScanResult, load_run

__version__ = "0.2.0.dev0"
__all__ = ["Run", "ScanResult", "load_run"]


def __getattr__(name: str) -> Any:
    """Import a public name at its first use (PEP 562)."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from cradl_jax import runs

    return getattr(runs, name)


def __dir__() -> list[str]:
    """List the public names, imported or not."""
    return sorted({*globals(), *__all__})
