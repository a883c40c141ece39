"""A VAE on the data of the paper's study (Section 4.4, equation 7).

python -m experiments.vae --config=configs/vae.py
"""

from ml_collections import ConfigDict

from configs import hcp


def get_config() -> ConfigDict:
    config = hcp.get_config()
    config.methods = ("vae",)
    return config
