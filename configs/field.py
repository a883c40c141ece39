"""The methods of the paper beside the strongest of the field, on the embedded phantom.

    python -m experiments.reproduce --config=configs/field.py --workdir=runs/field

As configs/phantom.py, with what the field has beyond the paper. Two methods are other pretexts for
the encoder: to tell what was cut and pasted (cutpaste; Li et al. 2021), and masked autoencoding
(mae; He et al. 2022). Two restore slices: a denoising autoencoder with coarse noise (dae; Kascenas
et al. 2022), and the restoration of graded synthetic corruptions (disyre; Naval Marimont et al.
2024). One reconstructs the features of CRADL's encoder (fae; Meissen et al. 2022). Every encoder
has a memory of normal patches beside its dense densities (memory; Roth et al. 2022), and every VAE
restores slices step by step (restored; Chen et al. 2020).

`--config.methods=cutpaste,mae` runs these alone; fae needs cradl beside it, or its run of before.
`--config.smoke=True` runs the whole path on a handful of scans; its figures mean nothing.
"""

from ml_collections import ConfigDict

from configs import phantom
from cradl_jax.names import METHODS


def get_config() -> ConfigDict:
    """Return the settings."""
    config = phantom.get_config()
    config.methods = METHODS
    config.memory.size = 5_000
    config.score.restoration_steps = 60
    config.smoke_settings.memory = {"size": 100}
    config.smoke_settings.score = {"restoration_steps": 4}
    return config
