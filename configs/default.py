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
    config.data = data()
    config.model = model()
    config.augment = augment()
    config.train = train()
    config.loss = loss()
    config.restoration = restoration()
    config.overrides = overrides()
    config.gmm = gmm()
    config.flow = flow()
    config.memory = memory()
    config.score = score()
    return config


def data() -> ConfigDict:
    """Return which scans a study takes, and how they are sliced."""
    data = ConfigDict()
    data.root = os.environ.get("CRADL_DATA", placeholder(str))
    data.contrast = "T2w"  # or T1w, FLAIR, PDw: which scans of a data set to take
    data.size = 128  # pixels
    data.field_mm = 224.0  # width of a slice, for every scan the same
    data.span = "brain"  # of a stack; "volume" includes blank slices, as Table 1 counts
    data.detrend = True  # a scan loses its linear trend in brightness, as a coil leaves it
    data.slice_spacing_mm = placeholder(float)  # None: the scans' own slices
    data.workers = 0  # all cores
    data.stream = "auto"  # from disk in training: always, never, or where they do not fit
    data.seed = 0  # of splits that the data do not fix
    data.separate = placeholder(str)  # data sets a,b whose people are in no other
    data.sets = ConfigDict(sort_keys=False)  # `healthy` to learn from, others anomalous
    return data


def model() -> ConfigDict:
    """Return the size of the networks."""
    model = ConfigDict()
    model.features = 64  # nf of Table 10
    model.latent = 512  # nz of Table 10
    model.head = (512, 256)  # of the projection head
    model.dtype = "auto"  # bfloat16 products on accelerators, float32 on CPU
    return model


def augment() -> ConfigDict:
    """Return the random transforms of training (Section 4.3)."""
    augment = ConfigDict()
    augment.mirror = 0.5  # probability of swapping left and right
    augment.shift = 22 / 128  # share of the image's side; SimCLR's random crop
    augment.scale = (0.9, 1.2)
    augment.rotation = 0.1  # radians
    augment.noise = 0.05  # largest standard deviation
    return augment


def train() -> ConfigDict:
    """Return the schedule of training."""
    train = ConfigDict()
    train.epochs = 100
    train.warmup_epochs = 10
    train.batch_size = 512  # over all devices
    train.learning_rate = 1e-4
    train.annealing = True  # of the learning rate, to 0 by a cosine
    train.weight_decay = 1e-6
    return train


def loss() -> ConfigDict:
    """Return temperature and weights of the losses."""
    loss = ConfigDict()
    loss.temperature = 0.5  # of NT-Xent
    loss.beta = 1.0  # of the KL-divergence, equation 7
    loss.gamma = 1.0  # of ceVAE's restoration, equation 8
    return loss


def restoration() -> ConfigDict:
    """Return how slices are corrupted for a method that restores them, beyond the paper."""
    restoration = ConfigDict()
    restoration.noise = 0.6  # standard deviation of a denoising autoencoder's coarse noise
    return restoration


def overrides() -> ConfigDict:
    """Return what a method does differently.

    Section 4.4 names no crop and no schedule for the VAEs.
    """
    return ConfigDict(
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


def gmm() -> ConfigDict:
    """Return how Gaussian mixtures are fitted."""
    gmm = ConfigDict()
    gmm.components = (1, 2, 4, 8)
    gmm.tolerance = 0.1  # on the mean log-likelihood
    gmm.regularization = 1e-5  # added to the covariances' diagonal
    gmm.max_iterations = 200
    gmm.restarts = 1
    return gmm


def flow() -> ConfigDict:
    """Return how the RealNVP is fitted (appendix D)."""
    flow = ConfigDict()
    flow.blocks = 8  # 0: no flow
    flow.hidden = 512
    flow.epochs = 60
    flow.batch_size = 512
    flow.learning_rate = 1e-3
    flow.decay_epochs = 20  # after so many, a tenth of the rate
    flow.weight_decay = 1e-4
    flow.noise = 1e-3
    flow.clip = 5.0
    return flow


def memory() -> ConfigDict:
    """Return how many normal patches are kept, beyond the paper."""
    memory = ConfigDict()
    memory.size = 0  # patches that the memory of an encoder's features keeps; 0: no memory
    return memory


def score() -> ConfigDict:
    """Return how slices are scored."""
    score = ConfigDict()
    score.batch_size = 256  # slices scored at once, over all devices
    score.neighbours = 0  # slices on either side that heatmaps are averaged over
    score.restoration_steps = 0  # of a VAE's restoration by its ELBO; 0: no such score
    return score


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
