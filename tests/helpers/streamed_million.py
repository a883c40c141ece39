"""Train some steps on a million slices of 128x128 that stream from FOLDER; print the peak memory.

    python tests/streamed_million.py FOLDER

The images lie in a sparse file: reading costs as much as of any other, but the disk has none of it.
"""

import csv
import json
import resource
import sys
from itertools import islice
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from numpy.lib.format import open_memmap

from cradl_jax.data.slices.store import ARRAYS, FORMAT, TABLES, open_store
from cradl_jax.data.slices.subset import SliceSubset
from cradl_jax.storage.integrity import write_checksums
from cradl_jax.training.feeds import streamed
from cradl_jax.training.loop import train
from cradl_jax.training.steps import adam, create_state

SLICES, SIZE, SCANS = 1_000_000, 128, 10_000
CHUNKS = 3


def write_store(folder: Path) -> None:
    """Write slices that are 0, but for some of them."""
    folder.mkdir()
    for name, dtype in ARRAYS.items():
        open_memmap(folder / f"{name}.npy", "w+", dtype, (SLICES, SIZE, SIZE))
    images = np.load(folder / "images.npy", mmap_mode="r+")
    images[::50_000] = np.random.default_rng(0).uniform(-1.5, 1.5, (20, SIZE, SIZE))
    with (folder / "index.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["scan", "subject", "split", "z", "position"])
        for scan in range(SCANS):
            split = "train" if scan < 0.9 * SCANS else "val"
            height = SLICES // SCANS
            writer.writerows([scan, f"s{scan}", split, z, z / height] for z in range(height))
    (folder / "scans.json").write_text(json.dumps([{}] * SCANS))
    manifest = {"format": FORMAT, "settings": {"size": SIZE}, "slices": SLICES, "fingerprint": ""}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    write_checksums(folder, *TABLES)


def fitted(variables, images, keys, train):
    """Compute next to nothing: the memory is that of the data."""
    loss = jnp.square(images - variables["params"]["weights"]).mean()
    return loss, (variables["batch_stats"], {})


def main(folder: Path) -> None:
    write_store(folder)
    store = open_store(folder)
    optimizer = adam(1e-3, 0.0, 1, 100)
    variables = {"params": {"weights": np.zeros((SIZE, SIZE), np.float32)}, "batch_stats": {}}
    chunks = train(
        create_state(variables, optimizer),
        fitted,
        optimizer,
        *(SliceSubset(store.images, store.rows(split)) for split in ("train", "val")),
        epochs=1,
        batch_size=512,
        seed=0,
        devices=jax.devices()[:1],
        place=streamed,
    )
    steps = [int(chunk.state.step) for chunk in islice(chunks, CHUNKS)]
    print(steps[-1], resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
