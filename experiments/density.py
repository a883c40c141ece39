"""Model the representations of normal slices: a GMM for each configured K (Section 3.2, 4.3).

    python -m experiments.density --config=configs/phantom.py [--workdir=runs/phantom]

Needs a trained encoder. Writes WORKDIR/seed<seed>/<method>/densities: one .npz a density and
diagnostics.json (effective rank of the representations, negative log-likelihoods).
"""

from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict
from tqdm import tqdm

from cradl_jax import densities, metrics
from cradl_jax.checkpoints import write_json, write_manifest
from experiments import app, runs
from experiments.preprocess import stores


def representations(config: ConfigDict, model: runs.Trained, store, split: str) -> np.ndarray:
    """z = f(x) of every slice of a split, [N, latent]."""
    rows = store.rows(split)
    batches = runs.in_batches(config, model.encode, model.variables, store.images, rows, "encode")
    return np.concatenate(list(batches))


def fit(config: ConfigDict, workdir: Path, method: str) -> None:
    """Fit every configured density on one run's representations, unless they are there."""
    folder = runs.folder(workdir, config.seed, method) / "densities"
    model = runs.trained(config, workdir, method)
    write_manifest(folder, runs.density_settings(config), model.identity)
    if (folder / "diagnostics.json").exists():
        return
    healthy = next(iter(stores(config, workdir).values()))
    train, val = (representations(config, model, healthy, split) for split in ("train", "val"))
    nll = {}
    named = dict(zip(runs.density_names(config), config.gmm.components, strict=True))
    for name, components in tqdm(named.items(), "fit densities", unit="gmm"):
        key = jax.random.fold_in(jax.random.key(config.seed), components)
        density, history = densities.fit_gmm(
            key,
            train,
            components=components,
            tolerance=config.gmm.tolerance,
            regularization=config.gmm.regularization,
            max_iterations=config.gmm.max_iterations,
            restarts=config.gmm.restarts,
        )
        densities.save(folder / f"{name}.npz", density)
        nll[name] = {
            "train": -float(densities.log_prob(density, train).mean()),
            "val": -float(densities.log_prob(density, val).mean()),
            "iterations": len(history),
        }
    write_json(
        folder / "diagnostics.json",
        {
            "effective_rank": metrics.effective_rank(train),
            "eigenvalues": metrics.covariance_spectrum(train).tolist(),
            "nll": nll,
        },
    )


def main(config: ConfigDict, workdir: Path) -> None:
    """Entry point."""
    fit(config, workdir, "cradl")


if __name__ == "__main__":
    app.run(main)
