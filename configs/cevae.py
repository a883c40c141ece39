"""A context-encoding VAE: a VAE that also restores masked slices (Section 4.4, equation 8).

python -m experiments.vae --config=configs/cevae.py
"""

from ml_collections import ConfigDict

from configs import vae


def get_config() -> ConfigDict:
    config = vae.get_config()
    config.methods = ("cevae",)
    return config
