"""The embedded phantom at the paper's size: 128x128 slices, nf 64, nz 512, for a GPU.

    python -m experiments.reproduce --config=configs/phantom128.py --workdir=runs/phantom128

300 brains to learn from, 25,000 slices, for which the three trainings take two minutes at the rates
measured on one H200. The same command continues an interrupted study. `--config.smoke=True` runs
the whole path on a handful of scans and a small network, in ten minutes on two CPU cores; its
figures mean nothing.

Expect no figures yet: the study has not been run whole. Temperature and learning rate are those of
configs/phantom.py, chosen there on validation scans; in bfloat16 a VAE diverged at that rate, so
that both VAEs keep the paper's.
"""

from ml_collections import ConfigDict

from configs import default, phantom


def get_config() -> ConfigDict:
    """Return the settings."""
    config, small = default.get_config(), phantom.get_config()
    config.seeds = (0,)
    config.phantom = small.phantom
    config.phantom.spacing_mm = 1.75  # a pixel of the slices
    config.phantom.subjects = ConfigDict(
        {
            "healthy": {"train": 300, "val": 30, "test": 40},
            "synth": {"val": 49, "test": 49},
            "lesion": {"val": 10, "test": 20},
        }
    )
    config.data.sets = small.data.sets

    config.train.epochs = 60
    config.train.warmup_epochs = 5
    config.train.learning_rate = 1e-3
    config.loss.temperature = 0.07
    for method in ("vae", "cevae"):
        config.overrides[method].train.learning_rate = 1e-4

    config.smoke = False
    config.smoke_settings = small.smoke_settings
    config.smoke_settings.model = ConfigDict({"features": 8, "latent": 64, "head": (64, 32)})
    config.smoke_settings.flow = ConfigDict({"hidden": 64, "epochs": 2})
    return config
