"""CRADL in JAX: contrastive representations for unsupervised anomaly detection and localization.

import cradl_jax
run = cradl_jax.load_run("runs/phantom/seed0/cradl")
run.predict("scan.nii.gz").save("prediction")
"""

__version__ = "0.1.0"

from cradl_jax.runs import Run, ScanResult, load_run

__all__ = ["Run", "ScanResult", "load_run"]
