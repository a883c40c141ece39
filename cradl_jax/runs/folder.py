"""Read a run from its folder.

manifest.json          settings, fingerprint of the training data, versions
checkpoints/           the latest and the best, by orbax
densities/             one .npz a density, and a manifest of its own
thresholds/            thresholds.json, and a manifest of its own
evaluation/            results.csv, from which the scores are chosen
"""

import json
from collections.abc import Sequence
from pathlib import Path

import jax

from cradl_jax import checkpoints, densities, methods, report
from cradl_jax.errors import InputError
from cradl_jax.runs import parts
from cradl_jax.thresholds import FILE, Thresholds, from_plain


def read(folder: Path) -> parts.Parts:
    """All parts of the run at `folder`.

    Raises:
        InputError: there is no run, it is incomplete, made by another version, or its parts do not
            belong together; the message names the command that mends it.
    """
    if not (folder / "manifest.json").exists() and (below := find_runs(folder)):
        raise InputError(
            f"{folder}: expected the folder of one run, found that of a study; name one of "
            f"{', '.join(map(str, below))}"
        )
    manifest = checkpoints.read_manifest(folder)
    model = read_model(folder)
    fitted = read_densities(folder, model)
    known = read_known(folder, parts.identity_of(model.variables, fitted))
    results = folder / "evaluation" / "results.csv"
    rows = report.read_csv(results) if results.exists() else []
    method = manifest["settings"]["method"]
    chosen = {
        "score": chosen_score(rows, method, "slice", list(known.slices)),
        "heatmap": chosen_score(rows, method, "voxel", list(known.heatmaps)),
    }
    return parts.Parts(manifest, model.variables, fitted, known, chosen)


def find_runs(folder: Path) -> list[Path]:
    """The runs of a study's working directory."""
    found = sorted(folder.glob("seed*/*/manifest.json"))
    return [path.parent for path in found if (path.parent / "checkpoints").is_dir()]


def read_model(folder: Path) -> parts.Model:
    """The network of smallest validation loss.

    Raises:
        InputError: it is not trained, or its checkpoint is of another network.
    """
    settings = checkpoints.read_manifest(folder)["settings"]
    network = parts.network(settings)
    template = jax.eval_shape(
        lambda: methods.initial_variables(network, settings["seed"], settings["size"])
    )
    return parts.model(settings, checkpoints.read_best(folder, template))


def read_densities(folder: Path, model: parts.Model) -> dict[str, densities.Density]:
    """The densities on the representations of `model`, by name.

    Raises:
        InputError: one is missing or damaged, or they are of another model.
    """
    place = folder / "densities"
    settings = checkpoints.read_manifest(place)["settings"]
    checkpoints.check_manifest(place, settings, model.identity)
    names = parts.density_names(settings["gmm"]["components"])
    return {name: densities.load(place / f"{name}.npz") for name in names}


def read_known(folder: Path, identity: str) -> Thresholds:
    """The thresholds of a run whose network and densities have this fingerprint.

    Raises:
        InputError: there are none, they are damaged, or they are of other models.
    """
    place = folder / "thresholds"
    again = "run python -m experiments.thresholds with the study's --config and --workdir"
    if not (place / FILE).exists():
        raise InputError(f"{place / FILE}: expected thresholds, found no such file; {again}")
    if checkpoints.read_manifest(place)["fingerprint"] != identity:
        raise InputError(
            f"{place}: expected thresholds of this run's models, found those of others; remove "
            f"that folder and {again}"
        )
    try:
        return from_plain(json.loads((place / FILE).read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as fault:
        raise InputError(
            f"{place / FILE}: expected thresholds, found a damaged file ({fault}); remove that "
            f"folder and {again}"
        ) from fault


def chosen_score(
    rows: Sequence[report.Result], method: str, level: str, names: Sequence[str]
) -> str:
    """Of `names` the score that validation chose for the first data set; else a GMM's, or any."""
    by_choice = report.select_scores(rows)
    for dataset in dict.fromkeys(row.dataset for row in rows):
        found = by_choice.get(report.Choice(dataset, level, "full", method))
        if found in names:
            return found
    mixtures = [name for name in names if name.startswith("gmm")]
    return max(mixtures, key=lambda name: int(name.removeprefix("gmm")), default=names[0])
