"""A VAE on the data of the paper's study (Section 4.4, equation 7).

    python -m experiments.preprocess --config=configs/vae.py
    python -m experiments.vae --config=configs/vae.py

Trains on HCP as configs/hcp.py does, for one seed, and evaluates nothing: it leaves a run in
runs/vae/seed0/vae. Expect it to detect worse than CRADL and to localize bright lesions well; on the
phantom, where it trains by configs/phantom.py, slice AUPRC is 30.0 % (synth) and voxel AUPRC 84.1 %
(lesion). The training takes 228 s on one H200 and months on two CPU cores.
"""

from ml_collections import ConfigDict

from configs import hcp


def get_config() -> ConfigDict:
    """Return the settings."""
    config = hcp.get_config()
    config.methods = ("vae",)
    return config
