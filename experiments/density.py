"""Model the representations of normal slices: GMMs and a RealNVP (Section 3.2, 4.3, appendix D).

    python -m experiments.density --config=configs/phantom.py [--workdir=runs/phantom]

Slices and trains first, unless that is done. On the representations of a VAE or ceVAE the densities
are the paper's RADL (Section 5.3). Writes WORKDIR/seed<seed>/<method>/densities: one .npz a
density, with its negative log-likelihoods beside it, and diagnostics.json; dense.npz holds
Gaussians of the encoder's features and of pixels at each position, and memory.npz patches of
healthy slices, if `config.memory.size` is not 0. Those of pixels and patches,
which need no network, go to WORKDIR/seed<seed>/baseline/densities.
"""

from pathlib import Path

from ml_collections import ConfigDict

from cradl_jax.names import BASELINE
from experiments.cli import distributed
from experiments.study import app


def main(config: ConfigDict, workdir: Path) -> None:
    """Fit the densities of the configured methods, and the baselines."""
    from experiments.study import stages  # imports the library

    for method in (*config.methods, BASELINE):
        stages.fit_densities(config, workdir, method)


if __name__ == "__main__":
    app.run(distributed.joined(main))
