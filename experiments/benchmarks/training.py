"""Training steps of the networks, as `training.loop` runs them: chunks inside `lax.scan`."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from ml_collections import ConfigDict

from configs import default
from cradl_jax import augment, objectives
from cradl_jax.corruptions import coarse_noise
from cradl_jax.devices.parallel import AXIS, over_devices, replicate
from cradl_jax.methods import initial_variables
from cradl_jax.objectives import Objective, Variables
from cradl_jax.training.loop import Progress, train
from cradl_jax.training.steps import adam, create_state, train_step
from experiments.benchmarks import flops
from experiments.benchmarks.rows import Limit, Row, compare
from experiments.benchmarks.timing import REPETITIONS, matrix_products
from experiments.study import settings

CHUNKS = 8  # of an epoch; `train` runs 13 to 25 steps at once, where an epoch has as many
COMPARED = 3  # steps whose losses must agree
ENDLESS = 10**9  # steps, so that the learning rate stays the same
PASSES = {"cradl": 2, "vae": 1, "cevae": 2, "dae": 1}  # passes through the network in a step
OPTIMIZER = {"learning_rate": 1e-4, "weight_decay": 1e-6}
WORK = (
    "The same network in float32, batch statistics of each batch, Adam, L2 decay of the kernels. "
    f"From the same weights the losses of the first {COMPARED} steps agree to 1e-4. The peer is "
    "given its {inputs}; ours makes them in the step."
)


class Network(NamedTuple):
    """Sizes of a network and its batch: nf and nz of Table 10, the head of Section 4.2."""

    size: int
    features: int
    latent: int
    head: tuple[int, int]
    batch: int

    def __str__(self) -> str:
        """Describe a step, as the size of a row."""
        return f"a step of {self.batch} slices of {self.size}x{self.size}, nf {self.features}"


PAPER = Network(128, 64, 512, (512, 256), 16)
PHANTOM = Network(64, 16, 128, (128, 64), 64)


class Case(NamedTuple):
    """A training step on both sides.

    Attributes:
        part: name of the row.
        objective: our objective.
        variables: the variables that both start from.
        inputs: maps images [n, H, W] and the keys [n] of the objective to what the peer takes.
        peer: makes a fresh training of the peer from the same variables; channels last or not.
        flops: FLOPs of a step, per slice.
        work: what makes the work equal.
    """

    part: str
    objective: Objective
    variables: Variables
    inputs: Callable[[Array, Array], tuple[Array, ...]]
    peer: Callable[[bool], Any]
    flops: int
    work: str


def config_of(network: Network) -> ConfigDict:
    """Return the config of the paper with the sizes of a network."""
    config = default.get_config()
    config.data.size = network.size
    config.model.features, config.model.latent = network.features, network.latent
    config.model.head = network.head
    config.train.batch_size = network.batch
    return config


def training_flops(method: str, network: Network) -> int:
    """Count the FLOPs of a training step for one slice."""
    size, features, latent, head, _ = network
    if method == "dae":
        layers = flops.unet(size, features)
    elif method == "cradl":
        layers = flops.encoder(size, features, latent) + flops.dense([latent, *head])
    else:
        layers = flops.encoder(size, features, 2 * latent) + flops.decoder(size, features, latent)
    return PASSES[method] * flops.training(layers)


def random_slices(count: int, size: int) -> np.ndarray:
    """Draw slices [count, size, size] in [-1.5, 1.5]; their content does not change the work."""
    rng = np.random.default_rng(0)
    return 3 * rng.random((count, size, size), np.float32) - 1.5


def simclr(network: Network = PAPER, **timing: int) -> Row:
    """Time a SimCLR step; `timing` is passed to `step`.

    The views differ in brightness alone, since augmentation has a part of its own. Were they the
    same, the compiler would pass both through the network as one.
    """
    from experiments.benchmarks.peers import torch_training

    config, view = config_of(network), augment.brightness()
    model = settings.network(config, "cradl")
    variables = initial_variables(model, config.seed, network.size)
    temperature = config.loss.temperature

    def views(images: Array, keys: Array) -> tuple[Array, ...]:
        both = jax.vmap(jax.random.split, out_axes=1)(keys)
        return tuple(jax.vmap(view)(keys, images) for keys in both)

    def peer(channels_last: bool):
        options = OPTIMIZER | {"temperature": temperature, "channels_last": channels_last}
        return torch_training.simclr(variables["params"], network[:3], network.head, **options)

    objective = objectives.simclr(model, view, temperature, AXIS)
    work = WORK.format(inputs="two views, which differ in brightness alone")
    needed = training_flops("cradl", network)
    case = Case("simclr", objective, variables, views, peer, needed, work)
    return step(case, network, **timing)


def vae(network: Network = PAPER, **timing: int) -> Row:
    """Time a VAE step on slices without augmentation; `timing` is passed to `step`."""
    from experiments.benchmarks.peers import torch_training

    config = config_of(network)
    model = settings.network(config, "vae")
    variables = initial_variables(model, config.seed, network.size)

    def inputs(images: Array, keys: Array) -> tuple[Array, ...]:
        _, sample_keys = jax.vmap(jax.random.split, out_axes=1)(keys)
        shape = (network.latent,)
        return images, jax.vmap(lambda key: jax.random.normal(key, shape))(sample_keys)

    def peer(channels_last: bool):
        options = OPTIMIZER | {"channels_last": channels_last}
        return torch_training.vae(variables["params"], network[:3], **options)

    objective = objectives.vae(model, lambda key, image: image, config.loss.beta)
    work = WORK.format(inputs="noise; no augmentation")
    needed = training_flops("vae", network)
    case = Case("vae", objective, variables, inputs, peer, needed, work)
    return step(case, network, **timing)


def unet(network: Network = PAPER, **timing: int) -> Row:
    """Time a step of a denoising U-Net; `timing` is passed to `step`."""
    from experiments.benchmarks.peers import torch_training

    config = config_of(network)
    model = settings.network(config, "dae")
    variables = initial_variables(model, config.seed, network.size)
    noise = config.restoration.noise

    def inputs(images: Array, keys: Array) -> tuple[Array, ...]:
        _, noise_keys = jax.vmap(jax.random.split, out_axes=1)(keys)
        return images, jax.vmap(coarse_noise, (0, 0, None))(noise_keys, images, noise)

    def peer(channels_last: bool):
        options = OPTIMIZER | {"channels_last": channels_last}
        return torch_training.unet(variables["params"], network[:2], **options)

    objective = objectives.dae(model, lambda key, image: image, noise)
    work = WORK.format(inputs="noisy slices; no augmentation")
    needed = training_flops("dae", network)
    case = Case("unet", objective, variables, inputs, peer, needed, work)
    return step(case, network, **timing)


def step(
    case: Case,
    network: Network,
    steps: int = 13,
    repetitions: int = REPETITIONS,
) -> Row:
    """Check a case's steps against each other, then time chunks of `steps` of them."""
    from experiments.benchmarks.peers.torch_training import tensors

    images = random_slices(CHUNKS * steps * network.batch, network.size)
    optimizer = adam(**OPTIMIZER, warmup_steps=0, total_steps=ENDLESS)
    chunks = training_chunks(case.objective, optimizer, case.variables, images, network.batch)
    done = int(next(chunks).state.step)
    inputs = [tensors(x) for x in peer_inputs(case, network, images, max(done, COMPARED))]
    peers = {
        f"PyTorch, {layout}": case.peer(layout == "channels last")
        for layout in ("channels first", "channels last")
    }
    expected = our_losses(case, network, optimizer, images)
    for name, training in peers.items():
        losses = [training.step(*x) for x in inputs[:COMPARED]]
        np.testing.assert_allclose(losses, expected, rtol=1e-4, err_msg=f"{case.part}: {name}")

    return compare(
        case.part,
        str(network),
        "cradl_jax.training.loop",
        lambda: next(chunks),
        {
            name: lambda training=training: [training.step(*x) for x in inputs[:done]]
            for name, training in peers.items()
        },
        work=case.work,
        units=done,
        limit=Limit(matrix_products(), case.flops * network.batch),
        repetitions=repetitions,
    )


def peer_inputs(
    case: Case, network: Network, images: np.ndarray, steps: int
) -> Iterator[tuple[Array, ...]]:
    """Yield what the peer takes in each step, drawn as `train_step` draws it from the key 0."""
    for number in range(steps):
        key = jax.random.fold_in(jax.random.key(0), number)
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(network.batch))
        yield case.inputs(jnp.asarray(_batch(images, network, number)), keys)


def our_losses(
    case: Case, network: Network, optimizer: optax.GradientTransformation, images: np.ndarray
) -> list[float]:
    """Return the losses of our first steps."""
    devices = jax.local_devices()[:1]
    run = over_devices(train_step(case.objective, optimizer), devices, (None, 0, None), None)
    state, losses = replicate(create_state(case.variables, optimizer), devices), []
    for number in range(COMPARED):
        batch = _batch(images, network, number)[None]
        state, terms = run(state, batch, jax.random.key(0))
        losses.append(float(terms["loss"]))
    return losses


def training_chunks(
    objective: Objective,
    optimizer: optax.GradientTransformation,
    variables: Variables,
    images: np.ndarray,
    batch: int,
    epochs: int = 1,
    validated: int = 1,
) -> Iterator[Progress]:
    """Train on one device from the given variables, a chunk of steps at each `next`.

    The first `validated` images are the validation set at the end of each epoch.
    """
    return train(
        create_state(variables, optimizer),
        objective,
        optimizer,
        images,
        images[:validated],
        epochs=epochs,
        batch_size=batch,
        seed=0,
        devices=jax.local_devices()[:1],
    )


def _batch(images: np.ndarray, network: Network, number: int) -> np.ndarray:
    """Return the images of step `number`."""
    return images[number * network.batch : (number + 1) * network.batch]
