"""SimCLR of a small encoder, quick to compile and to train."""

import jax
import numpy as np

from cradl_jax import augment, objectives
from cradl_jax.devices.parallel import AXIS
from cradl_jax.models.encoder import Encoder
from cradl_jax.models.simclr import SimCLR
from cradl_jax.training.steps import adam, create_state

MODEL = SimCLR(Encoder(4, 16, axis_name=AXIS), (16, 8))

VIEW = augment.views(mirroring=0.5, shift=0.1, scale=(0.9, 1.2), rotation=0.1, noise=0.05)

OBJECTIVE = objectives.simclr(MODEL, VIEW, 0.5, AXIS)

OPTIMIZER = adam(3e-3, 1e-6, warmup_steps=2, total_steps=36)


def initial_state():
    variables = jax.jit(MODEL.init)(jax.random.key(0), np.zeros((1, 16, 16), np.float32))
    return create_state(variables, OPTIMIZER)
