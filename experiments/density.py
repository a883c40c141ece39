"""Model the representations of normal slices: GMMs and a RealNVP (Section 3.2, 4.3, appendix D).

    python -m experiments.density --config=configs/phantom.py [--workdir=runs/phantom]

Needs the trained encoders of the config's methods; on those of a VAE or ceVAE the densities are
the paper's RADL (Section 5.3). Writes WORKDIR/seed<seed>/<method>/densities: one .npz a density
with its negative log-likelihoods beside it, and diagnostics.json. Gaussians of pixels and patches
at each position, which need no network, go to WORKDIR/seed<seed>/baseline/densities.
"""

from pathlib import Path

from ml_collections import ConfigDict

from experiments.cli import distributed
from experiments.study import app


def main(config: ConfigDict, workdir: Path) -> None:
    """Fit the densities of the configured methods, and the baselines."""
    from experiments.study import fitting  # imports the library

    for method in config.methods:
        fitting.fit(config, workdir, method)
    fitting.fit_baselines(config, workdir)


if __name__ == "__main__":
    app.run(distributed.joined(main))
