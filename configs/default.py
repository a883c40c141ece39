"""The paper's settings (Section 4 and appendix D); every other config starts here.

It names no data and so runs no study by itself: see configs/README.md for those that do. Where the
paper is silent, the table in cradl_jax/README.md says what is done and why.
"""

import os

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def get_config() -> ConfigDict:
    """Return the settings."""
    config = ConfigDict()
    config.seed = 0  # of a single command
    config.seeds = (0, 1, 2)  # of `reproduce`: mean (standard deviation) over them
    config.methods = ("cradl", "vae", "cevae")

    config.data = ConfigDict()
    config.data.root = os.environ.get("CRADL_DATA", placeholder(str))
    config.data.contrast = "T2w"  # or T1w, FLAIR, PDw: which scans of a data set to take
    config.data.size = 128  # pixels
    config.data.field_mm = 224.0  # width of a slice, for every scan the same
    config.data.span = "brain"  # of a stack; "volume" includes blank slices, as Table 1 counts
    config.data.detrend = True  # a scan loses its linear trend in brightness, as a coil leaves it
    config.data.slice_spacing_mm = placeholder(float)  # None: the scans' own slices
    config.data.workers = 0  # all cores
    config.data.stream = "auto"  # from disk in training: always, never, or where they do not fit
    config.data.seed = 0  # of splits that the data do not fix
    config.data.separate = placeholder(str)  # data sets a,b whose people are in no other
    config.data.sets = ConfigDict(sort_keys=False)  # `healthy` to learn from, others anomalous

    config.model = ConfigDict()
    config.model.features = 64  # nf of Table 10
    config.model.latent = 512  # nz of Table 10
    config.model.head = (512, 256)  # of the projection head
    config.model.dtype = "auto"  # bfloat16 products on accelerators, float32 on CPU

    config.augment = ConfigDict()
    config.augment.mirror = 0.5  # probability of swapping left and right
    config.augment.shift = 22 / 128  # share of the image's side; SimCLR's random crop
    config.augment.scale = (0.9, 1.2)
    config.augment.rotation = 0.1  # radians
    config.augment.noise = 0.05  # largest standard deviation

    config.train = ConfigDict()
    config.train.epochs = 100
    config.train.warmup_epochs = 10
    config.train.batch_size = 512  # over all devices
    config.train.learning_rate = 1e-4
    config.train.annealing = True  # of the learning rate, to 0 by a cosine
    config.train.weight_decay = 1e-6

    config.loss = ConfigDict()
    config.loss.temperature = 0.5  # of NT-Xent
    config.loss.beta = 1.0  # of the KL-divergence, equation 7
    config.loss.gamma = 1.0  # of ceVAE's restoration, equation 8

    config.restoration = ConfigDict()  # beyond the paper
    config.restoration.noise = 0.6  # standard deviation of a denoising autoencoder's coarse noise

    # What a method does differently. Section 4.4 names no crop and no schedule for the VAEs.
    config.overrides = ConfigDict(
        {
            "cradl": {},
            "vae": autoencoder(),
            "cevae": autoencoder(),
            "cutpaste": without_noise(),
            "mae": without_noise(),
            "dae": restorer(),
            "disyre": restorer(),
            "fae": restorer(),
        }
    )

    config.gmm = ConfigDict()
    config.gmm.components = (1, 2, 4, 8)
    config.gmm.tolerance = 0.1  # on the mean log-likelihood
    config.gmm.regularization = 1e-5  # added to the covariances' diagonal
    config.gmm.max_iterations = 200
    config.gmm.restarts = 1

    config.flow = ConfigDict()  # RealNVP, appendix D
    config.flow.blocks = 8  # 0: no flow
    config.flow.hidden = 512
    config.flow.epochs = 60
    config.flow.batch_size = 512
    config.flow.learning_rate = 1e-3
    config.flow.decay_epochs = 20  # after so many, a tenth of the rate
    config.flow.weight_decay = 1e-4
    config.flow.noise = 1e-3
    config.flow.clip = 5.0

    config.memory = ConfigDict()  # beyond the paper
    config.memory.size = 0  # patches that the memory of an encoder's features keeps; 0: no memory

    config.score = ConfigDict()
    config.score.batch_size = 256  # slices scored at once, over all devices
    config.score.neighbours = 0  # slices on either side that heatmaps are averaged over
    config.score.restoration_steps = 0  # of a VAE's restoration by its ELBO; 0: no such score
    return config


def autoencoder() -> dict:
    """Return what a VAE does differently from SimCLR."""
    return {
        "augment": {"shift": 0.0},
        "train": {"warmup_epochs": 0, "annealing": False, "weight_decay": 0.0},
    }


def without_noise() -> dict:
    """Return what a pretext beyond the paper does differently: it sees slices without noise."""
    return {"augment": {"noise": 0.0}}


def restorer() -> dict:
    """Return what a method that restores or reconstructs does differently: it sees clean slices."""
    return {"augment": {"shift": 0.0, "noise": 0.0}}
