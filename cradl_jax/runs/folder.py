"""Read a run from its folder.

manifest.json          settings, fingerprint of the training data, versions
checkpoints/           the latest and the best, by orbax
densities/             one .npz a density, and a manifest of its own
thresholds/            thresholds.json, and a manifest of its own
evaluation/            results.csv, from which the scores are chosen, and a manifest of its own

Each of the last three holds the hashes of its files (`integrity`), which are compared here.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from cradl_jax import densities, methods
from cradl_jax.errors import InputError
from cradl_jax.evaluation import results
from cradl_jax.evaluation.thresholds import FILE, Thresholds, from_plain
from cradl_jax.objectives import Variables
from cradl_jax.runs import checkpoints, contents
from cradl_jax.storage.integrity import check
from cradl_jax.storage.manifest import check_manifest, read_manifest
from cradl_jax.storage.reading import read_json

AGAIN = "run python -m experiments.{} with the study's --config and --workdir"


def read(folder: Path) -> contents.RunContents:
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
    manifest = read_manifest(folder)
    model = read_model(folder)
    fitted = read_densities(folder, model)
    identity = contents.identity_of(model.variables, fitted)
    known = read_known(folder, identity, manifest["fingerprint"])
    rows = []
    if (folder / "evaluation" / "results.csv").exists():
        rows = read_results(folder, identity, manifest["fingerprint"])
    method = manifest["settings"]["method"]
    chosen = {
        "score": chosen_score(rows, method, "slice", list(known.slices)),
        "heatmap": chosen_score(rows, method, "voxel", list(known.heatmaps)),
    }
    return contents.RunContents(manifest, model.variables, fitted, known, chosen)


def find_runs(folder: Path) -> list[Path]:
    """The runs of a study's working directory."""
    found = sorted(folder.glob("seed*/*/manifest.json"))
    return [path.parent for path in found if (path.parent / "checkpoints").is_dir()]


def read_model(folder: Path) -> contents.Model:
    """The network of smallest validation loss.

    Raises:
        InputError: it is not trained, or its checkpoint is of another network.
    """
    settings = read_manifest(folder)["settings"]
    return contents.model(settings, checkpoints.read_best(folder, template(settings)))


def template(settings: Mapping[str, Any]) -> Variables:
    """Structure and shapes of the variables of a run with these settings."""
    network = contents.network(settings)
    return jax.eval_shape(
        lambda: methods.initial_variables(network, settings["seed"], settings["size"])
    )


def read_densities(folder: Path, model: contents.Model) -> dict[str, densities.Density]:
    """The densities on the representations of `model`, by name.

    Raises:
        InputError: one is missing or damaged, or they are of another model.
    """
    place = folder / "densities"
    settings = read_manifest(place)["settings"]
    check_manifest(place, settings, model.identity)
    names = contents.density_names(settings["gmm"]["components"])
    fitted = {name: densities.load(place / f"{name}.npz") for name in names}
    check(place, AGAIN.format("density"))
    return fitted


def read_known(folder: Path, identity: str, data: str) -> Thresholds:
    """The thresholds of a run.

    Args:
        folder: of the run.
        identity: fingerprint of its network and densities.
        data: fingerprint of the healthy data.

    Raises:
        InputError: there are none, they are damaged, or they are of other models or data.
    """
    place = folder / "thresholds"
    again = AGAIN.format("thresholds")
    if not (place / FILE).exists():
        raise InputError(f"{place / FILE}: expected thresholds, found no such file; {again}")
    _check_origin(place, "thresholds", identity, data)
    try:
        known = from_plain(read_json(place / FILE))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as fault:
        raise InputError(
            f"{place / FILE}: expected thresholds, found a damaged file ({fault}); remove that "
            f"folder and {again}"
        ) from fault
    check(place, again)
    return known


def read_results(folder: Path, identity: str, data: str) -> list[results.Result]:
    """The results of a run's evaluation; see `read_known`, also for what is raised."""
    place = folder / "evaluation"
    _check_origin(place, "evaluate", identity, data)
    check(place, AGAIN.format("evaluate"), ["manifest.json", "results.csv"])
    return results.read_csv(place / "results.csv")


def _check_origin(place: Path, command: str, identity: str, data: str) -> None:
    """Raise an InputError unless what `command` wrote to `place` is of these models and data."""
    manifest = read_manifest(place)
    known = manifest["settings"].get("data")  # of the healthy data set, or of each by name
    healthy = known.get("healthy") if isinstance(known, dict) else known
    for what, expected, found in (
        ("models", identity, manifest["fingerprint"]),
        ("healthy data", data, healthy),
    ):
        if found != expected:
            raise InputError(
                f"{place}: expected what experiments.{command} found with the {what} of "
                f"{place.parent} ({expected}), found those of others ({found}); remove that folder "
                f"and {AGAIN.format(command)}"
            )


def chosen_score(
    rows: Sequence[results.Result], method: str, level: str, names: Sequence[str]
) -> str:
    """Of `names` the score that validation chose for the first data set; else a GMM's, or any."""
    by_choice = results.select_scores(rows)
    for dataset in dict.fromkeys(row.dataset for row in rows):
        found = by_choice.get(results.Choice(dataset, level, "full", method))
        if found in names:
            return found
    mixtures = [name for name in names if name.startswith("gmm")]
    return max(mixtures, key=lambda name: int(name.removeprefix("gmm")), default=names[0])
