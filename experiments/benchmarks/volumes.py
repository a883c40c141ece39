"""From scans to views: the phantom, preprocessing, augmentation."""

import contextlib
import gzip
import io
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from configs import default
from cradl_jax import augment
from cradl_jax.data.scans import bids
from cradl_jax.data.scans.layouts import find_scans
from cradl_jax.data.slices.building import build_store
from cradl_jax.data.synthetic import phantom
from cradl_jax.data.synthetic.atlas import load_atlas
from experiments.benchmarks.rows import Limit, Row, compare
from experiments.benchmarks.timing import REPETITIONS, Probe, cores, memory
from experiments.benchmarks.training import random_slices

BRATS = (240, 240, 155)  # voxels of 1 mm
DISTINCT = 4  # different scans among those that are preprocessed
OFFSET = 10  # slices left out at each end
BATCHES = 13  # whose views are made in a row


def augmentation(
    slices: int = 512,
    size: int = 128,
    repetitions: int = REPETITIONS,
) -> Row:
    """Time drawing two random views of every slice, as SimCLR takes them."""
    from experiments.benchmarks.peers import batchgenerators_views as peer

    config = default.get_config().augment
    settings = {"shift": config.shift, "scale": tuple(config.scale)}
    settings |= {"rotation": config.rotation, "noise": config.noise}
    view = augment.views(mirroring=config.mirror, **settings)
    images = random_slices(slices, size)
    _check_affine(images[:4], peer.rotated_and_scaled)

    @jax.jit
    def two_views(keys: jax.Array, images: jax.Array) -> list[jax.Array]:
        def again(_, keys: jax.Array) -> tuple[list[jax.Array], None]:
            return [jax.vmap(view)(keys, images) for keys in keys], None

        return lax.scan(again, [images] * 2, keys)[0]

    keys, data = jax.random.split(jax.random.key(0), (BATCHES, 2, slices)), jnp.asarray(images)
    workers = peer.Workers(images, **settings)
    try:
        return compare(
            "augmentation",
            f"two views of {slices} slices of {size}x{size}",
            "augment.views",
            lambda: two_views(keys, data),
            {"batchgenerators, a process a core": lambda: workers.views(2 * BATCHES)},
            work="Mirroring, one bilinear interpolation (crop, scale, rotation), brightness, "
            "noise, clipping, from the same ranges; the same rotation and scale give the same "
            f"slices to 1e-4. {BATCHES} times in a row, ours in one call, as in "
            "training. The processes of the peer hold the slices already.",
            units=BATCHES,
            limit=Limit(memory(), 4 * images.nbytes),
            repetitions=repetitions,
        )
    finally:
        workers.close()


def _check_affine(images: np.ndarray, peer, angle: float = 0.1, scale: float = 1.1) -> None:
    """Raise unless both interpolate slices [N, H, W] alike."""
    cos, sin = np.cos(angle), np.sin(angle)
    matrix = scale * jnp.array([[cos, sin], [-sin, cos]])
    ours = jax.vmap(lambda image: augment.affine(image, matrix, jnp.zeros(2)))(images)
    np.testing.assert_allclose(ours, peer(images, angle, scale), atol=1e-4)


def preprocessing(
    scans: int = 40,
    shape: tuple[int, int, int] = BRATS,
    size: int = 128,
    repetitions: int = 3,
) -> Row:
    """Time cutting scans on disk into slices on disk."""
    from experiments.benchmarks.peers.monai_slices import Loader

    workers = cores()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_scans(folder / "scans", scans, shape)
        inputs = find_scans(folder / "scans", "bids")
        files = [scan.image for scan in inputs]
        loader = Loader(files, size, workers)
        settings: dict[str, Any] = {"size": size, "field_mm": 240.0, "workers": workers}
        settings |= {"offset": OFFSET, "span": "volume"}

        def ours() -> np.ndarray:
            shutil.rmtree(folder / "ours", ignore_errors=True)
            with contextlib.redirect_stderr(io.StringIO()):  # its progress bar
                store = build_store(folder / "ours", inputs, **settings)
            assert store is not None  # there is no shard
            return store.images

        count = shape[2] - 2 * OFFSET
        voxels = "x".join(map(str, shape))
        return compare(
            "preprocessing",
            f"{scans} scans of {voxels} voxels to slices of {size}x{size}",
            "data.slices.building.build_store",
            ours,
            {"MONAI": lambda: loader.write(folder / "peer.npy", OFFSET, count)},
            work=f"Gzipped NIfTI, {workers} workers each; orientation, z-score over the brain, "
            "clipping, area-averaging resize, writing the slices. Ours averages exact areas of the "
            "brain alone, and also writes brains, masks and an index; slices correlate by 0.98. "
            "The limit is decompression alone.",
            check=_check_slices,
            limit=_decompression(files, workers),
            repetitions=repetitions,
        )


def write_scans(root: Path, count: int, shape: tuple[int, int, int]) -> None:
    """Write phantom scans at 1 mm in a field of view of `shape`, a few of them many times."""
    spacing_mm = (1.0, 1.0, 1.0)
    atlas = load_atlas(spacing_mm)
    names = [f"scan{number:03d}" for number in range(count)]
    bids.write_data_set(root, "benchmark", dict.fromkeys(names, "test"))
    for number, name in enumerate(names):
        path = bids.scan_path(root, name)
        if number < DISTINCT:
            brain = phantom.sample_healthy(jax.random.key(number), atlas, spacing_mm).intensities
            volume = centered(np.rint(1000 * np.asarray(brain)).astype(np.int16), shape)
            bids.write_volume(path, volume, np.eye(4))
        else:
            path.parent.mkdir(parents=True)
            shutil.copy(bids.scan_path(root, names[number % DISTINCT]), path)


def centered(volume: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """Crop a volume or pad it with zeros to `shape`, keeping its centre in the centre."""
    for axis, length in enumerate(shape):
        missing = length - volume.shape[axis]
        before = abs(missing) // 2
        if missing < 0:
            volume = volume.take(range(before, before + length), axis)
        else:
            pads = [(0, 0)] * volume.ndim
            pads[axis] = (before, missing - before)
            volume = np.pad(volume, pads)
    return volume


def _check_slices(mine: np.ndarray, theirs: np.ndarray) -> None:
    """Raise unless the slices of both correlate."""
    correlation = np.corrcoef(mine[::16].ravel(), theirs[::16].ravel())[0, 1]
    np.testing.assert_array_less(0.975, correlation)  # a shift by one pixel gives 0.93


def _decompression(files: list[Path], workers: int) -> Limit:
    """Return the limit that decompression on `workers` threads sets."""
    pool = ThreadPoolExecutor(workers)

    def unpack() -> int:
        return sum(pool.map(lambda file: len(gzip.decompress(file.read_bytes())), files))

    amount = unpack()
    return Limit(Probe("decompression", "B", amount, unpack), amount)


def phantom_volume(spacing: float = 2.0, repetitions: int = REPETITIONS) -> Row:
    """Time sampling a healthy subject of the phantom."""
    spacing_mm = (spacing, spacing, spacing)
    sample = partial(phantom.sample_healthy, atlas=load_atlas(spacing_mm), spacing_mm=spacing_mm)
    subject = sample(jax.random.key(0))
    return compare(
        "phantom",
        f"a subject at {spacing:g} mm",
        "data.synthetic.phantom.sample_healthy",
        lambda: sample(jax.random.key(0)),
        {},
        work="The limit counts the volumes that are written.",
        limit=Limit(memory(), sum(array.nbytes for array in subject)),
        repetitions=repetitions,
    )
