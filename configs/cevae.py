"""A context-encoding VAE: a VAE that also restores masked slices (Section 4.4, equation 8).

    python -m experiments.preprocess --config=configs/cevae.py
    python -m experiments.vae --config=configs/cevae.py

Trains on HCP as configs/hcp.py does, for one seed, and evaluates nothing: it leaves a run in
runs/cevae/seed0/cevae. Expect a reconstruction that localizes better than that of the VAE; on the
phantom, where both train by configs/phantom.py, voxel AUPRC is 20.3 % against 11.5 % (synth). The
training takes 426 s on one H200, twice as long as a VAE, and months on two CPU cores.
"""

from ml_collections import ConfigDict

from configs import vae


def get_config() -> ConfigDict:
    """Return the settings."""
    config = vae.get_config()
    config.methods = ("cevae",)
    return config
