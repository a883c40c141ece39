"""A study of a few lumpy ellipsoids whose encoder has learned nothing: enough to score scans."""

from pathlib import Path

import jax
import numpy as np

from configs import default
from cradl_jax.devices.parallel import replicate
from cradl_jax.methods import initial_variables
from cradl_jax.runs.checkpoints import Checkpoints
from cradl_jax.storage.manifest import write_manifest
from cradl_jax.training.steps import adam, create_state
from experiments import thresholds
from experiments.study import data_sets, fitting, preprocessing, runs, settings, training
from tests.helpers.scans import brain, write

SHAPE = (30, 36, 28)
SCANS = {"healthy": {"train": 4, "val": 3}, "lesion": {"val": 1, "test": 2}}


def tiny_config():
    config = default.get_config()
    config.methods = ("cradl",)
    config.data.update({"size": 32, "field_mm": 180.0})
    config.data.workers = 1
    for name in SCANS:
        config.data.sets[name] = {"layout": "csv", "path": f"{name}.csv", "offset": 0}
    config.model.update({"features": 4, "latent": 8, "head": (8, 4)})
    config.gmm.components = (1,)
    config.flow.update({"blocks": 1, "hidden": 4, "epochs": 1})
    config.score.batch_size = 32
    return config


def write_scans(root):
    """Write lumpy ellipsoids; those with a lesion have a bright cube."""
    for name, splits in SCANS.items():
        lines = ["subject,split,image,mask"]
        for split, count in splits.items():
            for number in range(count):
                subject, data = f"{name}-{split}{number}", brain(SHAPE, seed=len(lines))
                mask = np.zeros(SHAPE, np.float32)
                mask[12:18, 12:18, 10:16] = name == "lesion"
                affine = np.diag([5.0, 5.0, 5.0, 1.0])
                write(root / f"{subject}.nii.gz", data + 100 * mask, affine)
                if name == "lesion":
                    write(root / f"{subject}-mask.nii.gz", mask, affine)
                masked = f"{subject}-mask.nii.gz" if name == "lesion" else ""
                lines.append(f"{subject},{split},{subject}.nii.gz,{masked}")
        (root / f"{name}.csv").write_text("\n".join(lines) + "\n")


def keep_initial_weights(config, workdir):
    """Write a run whose encoder has learned nothing, which is enough to score slices with."""
    run = runs.folder(workdir, config.seed, "cradl")
    healthy = data_sets.stores(config, workdir)["healthy"]
    write_manifest(run, settings.of_run(config, "cradl"), healthy.manifest["fingerprint"])
    model = settings.network(config, "cradl")
    variables = initial_variables(model, config.seed, config.data.size)
    state = replicate(create_state(variables, adam(1e-3, 0.0, 1, 10)), jax.devices())
    with Checkpoints(run) as checkpoints:
        checkpoints.save(state, val_loss=0.0)
    training.complete_run(run)


def make(workdir: Path) -> Path:
    """Write scans, slices, a run, its densities and thresholds; return the folder."""
    config = tiny_config()
    write_scans(workdir / "data")
    preprocessing.preprocess(config, workdir)
    keep_initial_weights(config, workdir)
    fitting.fit(config, workdir, "cradl")
    fitting.fit_baselines(config, workdir)
    thresholds.main(config, workdir)
    return workdir
