"""Training on slices streamed from disk, against training on slices held by the device."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from cradl_jax.data.slices.subset import SliceSubset
from cradl_jax.methods import initial_variables
from cradl_jax.training.feeds import resident, streamed
from cradl_jax.training.loop import Progress, train
from cradl_jax.training.steps import adam, create_state
from experiments.benchmarks.rows import Row, compare
from experiments.benchmarks.timing import REPETITIONS
from experiments.benchmarks.training import CHUNKS, PHANTOM, Network, config_of, random_slices
from experiments.study import settings

TRAINING = PHANTOM._replace(batch=256)
ENDLESS = 10**6  # epochs


def streaming(
    network: Network = TRAINING,
    steps: int = 16,
    repetitions: int = REPETITIONS,
) -> Row:
    """Time chunks of `steps` training steps of SimCLR."""
    config = config_of(network)
    model = settings.network(config, "cradl")
    objective = settings.objective(config, "cradl", model)
    optimizer = adam(1e-4, 1e-6, 0, 10**9)
    variables = initial_variables(model, config.seed, network.size)
    count = CHUNKS * steps * network.batch

    def chunks(images: Any, place: Any) -> Iterator[Progress]:
        return train(
            create_state(variables, optimizer),
            objective,
            optimizer,
            images,
            images[: network.batch],
            epochs=ENDLESS,
            batch_size=network.batch,
            seed=0,
            devices=jax.devices()[:1],
            place=place,
        )

    def assert_equal(ours: Progress, peers: Progress) -> None:
        np.testing.assert_array_equal(ours.train["loss"], peers.train["loss"])

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "images.npy"
        np.save(path, random_slices(count, network.size))
        images = np.load(path, mmap_mode="r")
        from_disk: Any = chunks(SliceSubset(images, np.arange(count)), streamed)
        on_device = chunks(np.array(images), resident)
        row = compare(
            "streaming",
            str(network),
            "feeds.streamed",
            lambda: next(from_disk),
            {"feeds.resident": lambda: next(on_device)},
            work="The same training, to the bit; the slices are in the system's file cache.",
            units=steps,
            check=assert_equal,
            repetitions=repetitions,
        )
        from_disk.close()
    return row
