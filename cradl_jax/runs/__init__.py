"""Trained runs: what one consists of, its folder, its portable file, and what can be done with it.

run = load_run("runs/phantom/seed0/cradl")
run.score(images)             # slice scores and heatmaps
run.predict("scan.nii.gz")    # what it says of a scan, on the scan's own voxels
"""

from cradl_jax.runs.run import Run, ScanResult, load_run

__all__ = ["Run", "ScanResult", "load_run"]
