"""The methods of the paper beside the strongest of the field, on the embedded phantom.

    python -m experiments.reproduce --config=configs/field.py --workdir=runs/field

As configs/phantom.py, with four methods beyond the paper. Two are other pretexts for the encoder:
to tell what was cut and pasted (cutpaste; Li et al. 2021), and masked autoencoding (mae; He et al.
2022). Two restore slices: a denoising autoencoder with coarse noise (dae; Kascenas et al. 2022) and
the restoration of graded synthetic corruptions (disyre; Naval Marimont et al. 2024).
`--config.methods=cutpaste,mae` runs these alone, `--config.smoke=True` the whole path on a handful
of scans; its figures mean nothing.
"""

from ml_collections import ConfigDict

from configs import phantom
from cradl_jax.names import METHODS


def get_config() -> ConfigDict:
    """Return the settings."""
    config = phantom.get_config()
    config.methods = METHODS
    config.memory.size = 10_000
    config.smoke_settings.memory = {"size": 500}
    return config
