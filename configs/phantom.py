"""The embedded phantom: healthy brains sampled from the ICBM-152 atlas, foreign objects, lesions.

    python -m experiments.reproduce --config=configs/phantom.py --workdir=runs/phantom

Small enough for two CPU cores: 64x64 slices, nf 16, nz 128. It takes half an hour there, or less
than half of that with `--config.methods=cradl`. `--config.smoke=True` runs the whole path on a
handful of scans in a few minutes; its figures mean nothing.

Expect on the test scans, in % AUPRC: CRADL as in the paper 58.5 for slices and 22.0 for voxels with
foreign objects (synth), 91.1 and 68.2 with lesions; the ceVAE 35.7, 28.4, 78.0 and 84.8; the VAE
34.3, 16.7, 77.5 and 82.4; CRADL's dense densities 81.3, 63.0, 96.3 and 86.6. Other machines and
versions move these by a few points; configs/RESULTS.md has intervals.
"""

from ml_collections import ConfigDict

from configs import default


def get_config() -> ConfigDict:
    """Return the settings."""
    config = default.get_config()
    config.seeds = (0,)

    config.phantom = ConfigDict()
    config.phantom.spacing_mm = 2.0
    config.phantom.seed = 0
    config.phantom.subjects = ConfigDict(
        {
            "healthy": {"train": 132, "val": 12, "test": 20},
            "synth": {"val": 49, "test": 49},
            "lesion": {"val": 10, "test": 20},
        }
    )

    config.data.size = 64
    for name in ("healthy", "synth", "lesion"):  # the subjects, in the order of the tables
        config.data.sets[name] = ConfigDict({"layout": "bids", "path": name, "offset": 0})

    config.model.features = 16
    config.model.latent = 128
    config.model.head = (128, 64)

    config.train.epochs = 18
    config.train.warmup_epochs = 2
    config.train.batch_size = 256
    config.train.learning_rate = 1e-3
    config.loss.temperature = 0.07  # chosen among 0.07, 0.2 and 0.5 on validation scans
    for method in ("vae", "cevae"):
        del config.overrides[method]["train"]  # the schedule of SimCLR, for every method the same

    config.smoke = False
    config.smoke_settings = ConfigDict(
        {
            "phantom": {
                "subjects": {
                    "healthy": {"train": 6, "val": 2, "test": 2},
                    "synth": {"val": 2, "test": 2},
                    "lesion": {"val": 2, "test": 2},
                }
            },
            "train": {"epochs": 2, "warmup_epochs": 1, "batch_size": 64},
        }
    )
    return config
