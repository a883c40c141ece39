"""What the training commands share: data, loop, checkpoints, logs and the progress bar."""

import json
import time
from pathlib import Path

import jax
from absl import flags
from ml_collections import ConfigDict
from tensorboardX import SummaryWriter
from tqdm import tqdm

from cradl_jax.checkpoints import Checkpoints, write_manifest
from cradl_jax.errors import InputError
from cradl_jax.files import write_text
from cradl_jax.integrity import is_sealed, seal
from cradl_jax.methods import initial_variables
from cradl_jax.train import adam, create_state, steps_per_epoch, train
from experiments import runs, settings
from experiments.alone import stage
from experiments.preprocess import stores

RESUME = flags.DEFINE_bool("resume", False, "Continue from the latest checkpoint.")


class Log:
    """Scalars to `metrics.jsonl` and to TensorBoard."""

    def __init__(self, run: Path, step: int):
        """Append to the run's log, forgetting what was logged after `step`."""
        self.path = run / "metrics.jsonl"
        kept = [line for line in read_history(run) if line["step"] <= step]
        write_text(self.path, "".join(json.dumps(line) + "\n" for line in kept))
        self.board = SummaryWriter(str(run / "tensorboard"), purge_step=step + 1)

    def __call__(self, step: int, values: dict[str, float]) -> None:
        """Log `values`, named `train/loss` and so on, at `step`."""
        with self.path.open("a") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")
        for name, value in values.items():
            self.board.add_scalar(name, value, step)

    def close(self) -> None:
        """Flush TensorBoard's events."""
        self.board.close()


def read_history(run: Path) -> list[dict]:
    """The lines of a run's `metrics.jsonl`; a last line cut short by a kill is left out."""
    path = run / "metrics.jsonl"
    history = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            history.append(json.loads(line))
        except ValueError:
            break
    return history


def seal_run(run: Path) -> None:
    """Write the hashes of a finished training, unless they are there."""
    if not is_sealed(run):
        seal(run, "manifest.json", "metrics.jsonl", "checkpoints")


@stage("training of {}, seed {seed}")
def fit(config: ConfigDict, workdir: Path, method: str, resume: bool) -> None:
    """Train a method on the healthy slices and keep the checkpoint of smallest validation loss.

    Raises:
        InputError: the run exists and `resume` is false, or it is of other settings or data.
    """
    model = settings.network(config, method)
    objective = settings.objective(config, method, model)
    how = settings.of_method(config, method).train
    healthy = next(iter(stores(config, workdir).values()))
    train_rows, val_rows = (healthy.rows(split) for split in ("train", "val"))
    steps = steps_per_epoch(len(train_rows), how.batch_size)
    total = steps * how.epochs
    optimizer = adam(
        how.learning_rate,
        how.weight_decay,
        how.warmup_epochs * steps,
        total,
        how.annealing,
    )
    state = create_state(initial_variables(model, config.seed, config.data.size), optimizer)
    run = runs.folder(workdir, config.seed, method)
    write_manifest(run, settings.of_run(config, method), healthy.manifest["fingerprint"])

    with Checkpoints(run) as checkpoints:
        done = checkpoints.latest_step() or 0
        if done and not resume:
            raise InputError(f"{run}: already holds checkpoints; add --resume to continue")
        if done == total:
            seal_run(run)
            return
        if done:
            state = checkpoints.latest(state)
        log = Log(run, done)
        progress = train(
            state,
            objective,
            optimizer,
            healthy.images[train_rows],
            healthy.images[val_rows],
            epochs=how.epochs,
            batch_size=how.batch_size,
            seed=config.seed,
            devices=jax.local_devices(),
        )
        bar = tqdm(total=total, initial=done, unit="step", desc=f"train {method}")
        started = time.monotonic()
        for chunk in progress:
            done, before = int(chunk.state.step), done
            now = time.monotonic()
            speed = (done - before) * how.batch_size / (now - started)
            started = now
            values = {f"train/{name}": value for name, value in chunk.train.items()}
            values["train/slices_per_second"] = speed
            if chunk.val is not None:
                values |= {f"val/{name}": value for name, value in chunk.val.items()}
                checkpoints.save(chunk.state, chunk.val["loss"])
                bar.set_postfix_str(
                    f"loss {chunk.train['loss']:.3f}, val {chunk.val['loss']:.3f}, "
                    f"{speed:.0f} slices/s"
                )
            log(done, values)
            bar.update(done - before)
        bar.close()
        log.close()
    seal_run(run)
