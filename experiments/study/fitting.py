"""Fit the densities of a run to the representations of normal slices."""

import functools
import json
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict
from tqdm import tqdm

from cradl_jax import densities, methods
from cradl_jax.data.slices.store import SliceStore
from cradl_jax.densities import dense, memory
from cradl_jax.devices import processes
from cradl_jax.errors import InputError
from cradl_jax.evaluation import metrics
from cradl_jax.names import (
    BASELINE,
    DENSE,
    MEMORY,
    PATCHES,
    components_of,
    density_names,
    names_of_features,
)
from cradl_jax.objectives import Variables
from cradl_jax.runs import checkpoints, contents
from cradl_jax.runs.densities import (
    byte_size,
    read_density,
    read_of_features,
    write_density,
    write_local,
)
from cradl_jax.runs.folder import read_variables
from cradl_jax.scoring import Encode
from cradl_jax.storage.files import in_words, require_space, write_json
from cradl_jax.storage.integrity import is_complete, write_checksums
from cradl_jax.storage.manifest import (
    MANIFEST,
    fingerprint,
    read_manifest,
    write_fingerprint,
    write_manifest,
)
from cradl_jax.training.feeds import room
from experiments.cli.locking import exclusive_stage
from experiments.study import data_sets, runs, settings

SAMPLE = 2048  # slices whose features give the principal components, at most
PATCHES_EACH = 100  # of which a memory keeps one


@exclusive_stage("densities of {}, seed {seed}")
def fit(config: ConfigDict, workdir: Path, method: str) -> None:
    """Fit every configured density on one run's representations, unless it is there."""
    folder = runs.folder(workdir, config.seed, method) / "densities"
    healthy = next(iter(data_sets.stores(config, workdir).values()))
    run = runs.check(config, workdir, method, healthy)
    origin = settings.of_densities(config), checkpoints.read_fingerprint(run)
    processes.broadcast_from_first(lambda: write_manifest(folder, *origin))
    if processes.broadcast_from_first(lambda: is_complete(folder)):
        return
    processes.broadcast_from_first(lambda: require_room(config, folder, method))
    network = settings.network(config, method)
    encode = methods.encoder_of(network)
    variables = read_variables(run)
    train, val = (
        representations(config, encode, variables, healthy, split) for split in ("train", "val")
    )
    fit_features(config, folder, network, variables, healthy)
    processes.broadcast_from_first(lambda: fit_all(config, folder, method, train, val))


def fit_features(
    config: ConfigDict,
    folder: Path,
    network: methods.Network,
    variables: Variables,
    healthy: SliceStore,
) -> None:
    """Fit what models features at each position, and write what is not there.

    All processes compute features of the training slices, and fit the same; the first one writes.
    """
    rows = by_height(healthy, config.score.batch_size)
    sample = rows[np.linspace(0, len(rows) - 1, min(len(rows), SAMPLE)).astype(int)]
    fits = {DENSE: fit_dense, MEMORY: fit_memory}
    for name in names_of_features(settings.of_densities(config)):
        path = folder / f"{name}.npz"
        if processes.broadcast_from_first(path.exists):
            continue
        features_of = methods.features_of(network, name)
        projection = dense.principal(
            runs.in_batches(config, features_of, variables, healthy.images, sample, "components")
        )
        function, params = components(features_of, name), (variables, projection)
        batches = runs.in_batches(config, function, params, healthy.images, rows, f"fit {name}")
        fitted = fits[name](config, projection, batches, healthy, rows)
        processes.broadcast_from_first(functools.partial(write_local, path, fitted))


def fit_dense(
    config: ConfigDict,
    projection: jax.Array,
    batches: Iterable[np.ndarray],
    healthy: SliceStore,
    rows: np.ndarray,
) -> dense.Joint:
    """Fit Gaussians at each position, to batches of components of the slices `rows` and to pixels.

    Components are [N, G, G, C].
    """
    heights = dense.knots(healthy.position[rows], projection.shape[1])
    return dense.Joint(
        projection,
        dense.fit(heights, with_positions(batches, healthy, rows)),
        fit_patches(config, healthy, rows, side=1),
    )


def fit_memory(
    config: ConfigDict,
    projection: jax.Array,
    batches: Iterable[np.ndarray],
    healthy: SliceStore,
    rows: np.ndarray,
) -> memory.Memory:
    """Choose the patches to keep; the arguments are those of `fit_dense`.

    They are chosen among a hundred times as many with brain, the same number of each slice: a
    hundredth stays, as in PatchCore-1%.

    Raises:
        InputError: there are not so many patches.
    """
    size = config.memory.size
    each = -(-PATCHES_EACH * size // len(rows))
    vectors = drawn(np.random.default_rng(config.seed), batches, healthy, rows, each)
    if size > len(vectors):
        raise InputError(
            f"config.memory.size: expected at most {len(vectors)}, the patches of the training "
            f"slices, found {size}; choose a smaller one, or train on more scans"
        )
    sample = jnp.asarray(vectors)
    kept = memory.coreset(jax.random.key(config.seed), sample, size)
    return memory.Memory(projection, sample[kept])


def drawn(
    rng: np.random.Generator,
    batches: Iterable[np.ndarray],
    healthy: SliceStore,
    rows: np.ndarray,
    each: int,
) -> np.ndarray:
    """Draw patches with brain, up to `each` of every slice, from their components [N, G, G, C]."""
    vectors, first = [], 0
    for batch in batches:
        brains = healthy.brains[rows[first : first + len(batch)]]
        inside = dense.patches(jnp.asarray(brains), brains.shape[1] // batch.shape[1]).any(-1)
        for components, brain in zip(batch, np.asarray(inside), strict=True):
            vectors.append(rng.permutation(components[brain])[:each])
        first += len(batch)
        healthy.release()
    return np.concatenate(vectors)


@functools.lru_cache
def components(features_of: Encode, name: str) -> Callable[[Any, jax.Array], jax.Array]:
    """Return what `name` models, as `(variables, projection), images -> [N, G, G, C]`.

    It is principal components of features, and of a memory their means over patches.
    """

    def components(params: tuple[Variables, jax.Array], images: jax.Array) -> jax.Array:
        variables, projection = params
        features = features_of(variables, images)
        if name == MEMORY:
            return memory.of_patches(projection, features)
        return features @ projection

    return components


def with_positions(
    features: Iterable[np.ndarray], healthy: SliceStore, rows: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield each batch of features with the positions of its slices."""
    first = 0
    for batch in features:
        yield batch, healthy.position[rows[first : first + len(batch)]]
        first += len(batch)
        healthy.release()


@exclusive_stage("densities of the baselines, seed {seed}")
def fit_baselines(config: ConfigDict, workdir: Path) -> None:
    """Fit Gaussians to the patches of normal slices at each position, unless they are there.

    They read the training slices once for each size of patch, on the first process's device.
    """
    run = runs.folder(workdir, config.seed, BASELINE)
    folder = run / "densities"
    healthy = next(iter(data_sets.stores(config, workdir).values()))
    data = healthy.manifest["fingerprint"]

    def write_manifests() -> None:
        write_manifest(run, settings.of_slices(config, BASELINE), data)
        if not is_complete(run):
            write_checksums(run, MANIFEST)
        write_manifest(folder, settings.of_baselines(config), data)

    processes.broadcast_from_first(write_manifests)

    def fit_all_patches() -> None:
        rows = by_height(healthy, config.score.batch_size)
        fitted = {
            name: fit_patches(config, healthy, rows, side)
            for name, side in tqdm(PATCHES.items(), "fit baselines", unit="density")
        }
        for name, gaussians in fitted.items():
            write_local(folder / f"{name}.npz", gaussians)
        write_fingerprint(folder, fingerprint(fitted))
        write_checksums(folder)

    if not processes.broadcast_from_first(lambda: is_complete(folder)):
        processes.broadcast_from_first(fit_all_patches)


def by_height(healthy: SliceStore, block: int) -> np.ndarray:
    """Return the training slices that show brain, from the lowest to the highest.

    `block` brains are read at a time.
    """
    rows = healthy.rows("train")
    parts = (rows[first : first + block] for first in range(0, len(rows), block))
    rows = np.concatenate([part[healthy.brains[part].any((1, 2))] for part in parts])
    return rows[np.argsort(healthy.position[rows], kind="stable")]


def fit_patches(
    config: ConfigDict, healthy: SliceStore, rows: np.ndarray, side: int
) -> dense.Dense:
    """Fit Gaussians to the patches of some slices, read a batch at a time."""

    def batches() -> Iterator[tuple[jax.Array, np.ndarray]]:
        for first in range(0, len(rows), config.score.batch_size):
            chosen = rows[first : first + config.score.batch_size]
            images = jnp.asarray(healthy.images[chosen])
            yield dense.patches(images, side), healthy.position[chosen]
            healthy.release()

    return dense.fit(dense.knots(healthy.position[rows], side**2), batches())


def require_room(config: ConfigDict, folder: Path, method: str) -> None:
    """Raise an `InputError` unless the disk has room for the densities."""
    needed = byte_size(
        settings.of_method(config, method).model.latent,
        components=config.gmm.components,
        blocks=config.flow.blocks,
        hidden=config.flow.hidden,
        image=config.data.size,
        memory=config.memory.size,
    )
    require_space(folder, needed, "the densities")


def require_device_room(config: ConfigDict) -> None:
    """Raise an `InputError` unless a device has room for the patches that a memory is chosen of."""
    free, size = room(jax.devices()), config.memory.size
    each = PATCHES_EACH * dense.COMPONENTS * np.dtype(np.float32).itemsize
    if size * each > free:
        raise InputError(
            f"config.memory.size: expected at most {free // each}, as many as half of a device's "
            f"free memory has room for when they are chosen ({in_words(free)}), found {size} "
            f"({in_words(size * each)}); choose a smaller one"
        )


def representations(
    config: ConfigDict, encode: Encode, variables: Variables, store: SliceStore, split: str
) -> np.ndarray:
    """Encode every slice of a split, z = Enc(x), [N, latent]."""
    rows = store.rows(split)
    batches = runs.in_batches(config, encode, variables, store.images, rows, "encode")
    return np.concatenate(list(batches))


def fit_all(
    config: ConfigDict, folder: Path, method: str, train: np.ndarray, val: np.ndarray
) -> None:
    """Fit the densities that are missing to representations [N, latent], on this process's devices.

    They take minutes, a hundredth of a training: other processes wait.
    """
    depends = settings.of_densities(config)
    names = density_names(depends)
    for name in tqdm(names, f"fit densities of {method}", unit="density"):
        if not (folder / f"{name}.npz").exists():
            density, diagnostics = fit_and_describe(config, name, train, val)
            for warning in diagnostics["warnings"]:
                tqdm.write(f"warning: {name} of {method}: {warning}", file=sys.stderr)
            write_json(folder / f"{name}.json", diagnostics)
            write_density(folder / f"{name}.npz", density)
    spectrum = metrics.covariance_spectrum(train)
    diagnostics = {
        "effective_rank": metrics.effective_rank(spectrum),
        "eigenvalues": spectrum.tolist(),
        "nll": {name: json.loads((folder / f"{name}.json").read_text()) for name in names},
    }
    write_json(folder / "diagnostics.json", diagnostics)
    fitted = {name: read_density(folder / f"{name}.npz") for name in names}
    of_features = {
        name: read_of_features(folder / f"{name}.npz", name) for name in names_of_features(depends)
    }
    made_from = read_manifest(folder)["made_from"]
    write_fingerprint(folder, contents.fingerprint_of(made_from, fitted, of_features))
    write_checksums(folder)


def fit_and_describe(
    config: ConfigDict, name: str, train: np.ndarray, val: np.ndarray
) -> tuple[densities.Density, dict]:
    """Fit one density; also return its negative log-likelihoods, iterations and warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", densities.Collapsed)
        density, iterations = fit_one(config, name, train, val)
    return density, {
        "train": -float(densities.log_prob(density, train).mean()),
        "val": -float(densities.log_prob(density, val).mean()),
        "iterations": iterations,
        "warnings": [str(warning.message) for warning in caught],
    }


def fit_one(
    config: ConfigDict, name: str, train: np.ndarray, val: np.ndarray
) -> tuple[densities.Density, int]:
    """Fit one density to the representations [N, latent]; also return its number of iterations."""
    key, devices = jax.random.key(config.seed), jax.local_devices()
    components = components_of(name)
    if components is None:
        with tqdm(total=config.flow.epochs, desc="flow", unit="epoch", leave=False) as bar:
            density, history = densities.fit_realnvp(
                key, train, val, devices=devices, progress=lambda _: bar.update(), **config.flow
            )
        return density, len(history["val"])
    key = jax.random.fold_in(key, components)
    options = config.gmm.to_dict() | {"components": components}
    density, history = densities.fit_gmm(key, train, devices=devices, **options)
    return density, len(history)
