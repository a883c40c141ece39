"""The parts of experiments.benchmark, on a CPU and on an accelerator."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from tqdm import tqdm

from cradl_jax.errors import InputError
from experiments.benchmarks import (
    accelerator,
    densities,
    localization,
    streaming,
    table,
    training,
    volumes,
    voxels,
)
from experiments.benchmarks.rows import Row, Skipped

Parts = Mapping[str, Sequence[Callable[[], Row]]]

ON_CPU: Parts = {
    "simclr": (training.simclr, partial(training.simclr, training.PHANTOM, steps=25)),
    "vae": (training.vae, partial(training.vae, training.PHANTOM, steps=25)),
    "unet": (training.unet, partial(training.unet, training.PHANTOM, steps=25)),
    "streaming": (streaming.streaming,),
    "augmentation": (volumes.augmentation,),
    "em": (densities.em_iteration,),
    "flow": (densities.flow,),
    "heatmaps": (localization.heatmaps,),
    "dense": (localization.dense_maps,),
    "median": (localization.median,),
    "metrics": (voxels.metric_values,),
    "memory": (voxels.memory_above_stream,),
    "preprocessing": (volumes.preprocessing,),
    "phantom": (partial(volumes.phantom_volume, 2.0), partial(volumes.phantom_volume, 1.0)),
}

ON_ACCELERATOR: Parts = {
    "pretext": (partial(accelerator.pretext, "cradl"),),
    "vae": (partial(accelerator.pretext, "vae"),),
    "cevae": (partial(accelerator.pretext, "cevae"),),
    "dae": (partial(accelerator.pretext, "dae"),),
    "scoring": (accelerator.scoring,),
    "dense": (partial(localization.dense_maps, slices=8192, batch=256),),
    "em": (accelerator.em,),
    "phantom": (partial(volumes.phantom_volume, 2.0), partial(volumes.phantom_volume, 1.0)),
}


def choose(parts: Parts, names: Sequence[str] | None) -> Parts:
    """Return the named parts, or all of them without names.

    Raises:
        InputError: a name is not that of a part.
    """
    for name in names or ():
        if name not in parts:
            raise InputError(f"--parts: expected some of {', '.join(parts)}, found {name!r}")
    return {name: parts[name] for name in names or parts}


def run(parts: Parts) -> tuple[list[Row], dict[str, str]]:
    """Time the parts; return their rows, and for each skipped part the reason."""
    rows, skipped = [], {}
    with tqdm(parts.items(), unit="part") as bar:
        for name, functions in bar:
            bar.set_description(name)
            try:
                rows += [function() for function in functions]
            except ModuleNotFoundError as missing:
                module = (missing.name or "").partition(".")[0]
                if module not in table.PEERS:
                    raise
                skipped[name] = f"{module} is not installed; pip install -e '.[bench]'"
            except Skipped as why:
                skipped[name] = str(why)
    return rows, skipped
