"""Read a run from its folder.

manifest.json          settings, fingerprint of the training data, versions
checkpoints/           the latest and the best, by orbax, with the fingerprints of their weights
densities/             one .npz a density; its manifest has the fingerprint of run and densities;
                       a network without an encoder has none; those of the baselines, which have
                       no network, are Gaussians of pixels
thresholds/            thresholds.json, and a manifest of its own
evaluation/            results.csv, from which the scores are chosen, and a manifest of its own

Each part's manifest has the fingerprint of what the part was made from; they are compared here,
and so are the checksums of the files (`integrity`).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cradl_jax import densities
from cradl_jax.errors import InputError
from cradl_jax.evaluation import results
from cradl_jax.names import (
    BASELINE,
    DENSE,
    PATCHES,
    density_names,
    has_encoder,
    names_of_features,
)
from cradl_jax.objectives import Variables
from cradl_jax.runs import checkpoints, contents
from cradl_jax.runs.densities import read_density, read_of_features
from cradl_jax.scoring import Local
from cradl_jax.storage.integrity import check
from cradl_jax.storage.manifest import check_manifest, fingerprint, read_manifest
from cradl_jax.storage.reading import read_json
from cradl_jax.storage.schema import parse

THRESHOLDS = "thresholds.json"
AGAIN = "run python -m experiments.{} with the study's --config and --workdir"


def read(folder: Path) -> contents.RunContents:
    """Read all parts of the run at `folder`.

    Raises:
        InputError: there is no run, it is incomplete, made by another version, or its parts do not
            belong together; the message names the command that mends it.
    """
    manifests = sorted(folder.glob("seed*/*/manifest.json"))
    parts = "checkpoints", "densities"
    below = [path.parent for path in manifests if any((path.parent / p).is_dir() for p in parts)]
    if below and not (folder / "manifest.json").exists():
        raise InputError(
            f"{folder}: expected the folder of one run, found that of a study; name one of "
            f"{', '.join(map(str, below))}"
        )
    manifest = read_manifest(folder)
    variables = read_variables(folder)
    fitted = read_densities(folder)
    fingerprint = read_fingerprint(folder)
    thresholds = read_thresholds(folder, fingerprint, manifest["made_from"])
    rows = []
    if (folder / "evaluation" / "results.csv").exists():
        rows = read_results(folder, fingerprint, manifest["made_from"])
    method = manifest["settings"]["method"]
    chosen = {
        "score": chosen_score(rows, method, "slice", list(thresholds.slices)),
        "heatmap": chosen_score(rows, method, "voxel", list(thresholds.heatmaps)),
    }
    return contents.RunContents(manifest, variables, *fitted, thresholds, chosen, fingerprint)


def read_variables(folder: Path) -> Variables:
    """Read the variables of smallest validation loss; the baselines have none.

    Raises:
        InputError: it is not trained, or its checkpoint is of another network.
    """
    if _is_baseline(folder):
        return {}
    return checkpoints.read_best(folder, contents.template(read_manifest(folder)["settings"]))


def read_fingerprint(folder: Path) -> str:
    """Return the fingerprint of a run's network and its densities, without reading either.

    Raises:
        InputError: the densities are missing or incomplete, or they are of another network.
    """
    if _is_baseline(folder):
        return read_baseline_fingerprint(folder)
    of_network = checkpoints.read_fingerprint(folder)
    if not has_densities(folder):
        return contents.fingerprint_of(of_network)
    place = folder / "densities"
    manifest = read_manifest(place)
    check_manifest(place, manifest["settings"], of_network)
    return _of_all(place, manifest)


def _is_baseline(folder: Path) -> bool:
    return read_manifest(folder)["settings"]["method"] == BASELINE


def has_densities(folder: Path) -> bool:
    """Return whether a run is of a method with an encoder, whose representations are modelled."""
    return has_encoder(read_manifest(folder)["settings"]["method"])


def read_densities(folder: Path) -> tuple[dict[str, densities.Density], dict[str, Local]]:
    """Read the densities on a run's representations, by name, and those of its features.

    A network without an encoder has neither, the baselines have those of pixels.

    Raises:
        InputError: one is missing or damaged, or they are of another model.
    """
    if _is_baseline(folder):
        return {}, read_baselines(folder)
    if not has_densities(folder):
        return {}, {}
    place, expected = folder / "densities", read_fingerprint(folder)
    manifest = read_manifest(place)
    names = density_names(manifest["settings"])
    fitted = {name: read_density(place / f"{name}.npz") for name in names}
    of_features = {
        name: read_of_features(place / f"{name}.npz", name)
        for name in names_of_features(manifest["settings"])
    }
    check(place, AGAIN.format("density"))
    if contents.fingerprint_of(manifest["made_from"], fitted, of_features) != expected:
        raise InputError(
            f"{place}: expected densities of the fingerprint {expected}, found others; remove that "
            f"folder and {AGAIN.format('density')}"
        )
    return fitted, of_features


def read_baselines(folder: Path) -> dict[str, Local]:
    """Read the Gaussians of the baselines, by name; otherwise as `read_densities`."""
    place = folder / "densities"
    expected = read_baseline_fingerprint(folder)
    fitted = {name: read_of_features(place / f"{name}.npz", name) for name in PATCHES}
    check(place, AGAIN.format("density"))
    if (found := fingerprint(fitted)) != expected:
        raise InputError(
            f"{place}: expected baselines of the fingerprint {expected}, found {found}; remove "
            f"that folder and {AGAIN.format('density')}"
        )
    return fitted


def read_baseline_fingerprint(folder: Path) -> str:
    """Return the fingerprint of the baselines' Gaussians, without reading them.

    Raises:
        InputError: they are missing or incomplete.
    """
    place = folder / "densities"
    if not (place / "manifest.json").exists():
        raise InputError(
            f"{place}: expected the baselines' Gaussians, found none; {AGAIN.format('density')}"
        )
    return _of_all(place, read_manifest(place))


def _of_all(place: Path, manifest: Mapping[str, Any]) -> str:
    """Return the fingerprint in the manifest of densities; only complete ones have it."""
    if "fingerprint" not in manifest:
        raise InputError(
            f"{place}: expected all densities of a run, found some of them; "
            f"{AGAIN.format('density')}"
        )
    return manifest["fingerprint"]


def read_thresholds(folder: Path, made_from: str, data: str) -> contents.Thresholds:
    """Read the thresholds of a run.

    `made_from` is the fingerprint of its network and densities, `data` that of the healthy data.

    Raises:
        InputError: there are none, they are damaged, or they are of other models or data.
    """
    place = folder / "thresholds"
    path, again = place / THRESHOLDS, AGAIN.format("thresholds")
    if not path.exists():
        raise InputError(f"{path}: expected thresholds, found no such file; {again}")
    _check_origin(place, "thresholds", made_from, data)
    try:
        thresholds = parse(contents.Thresholds, read_json(path))
    except (OSError, ValueError) as fault:
        raise InputError(
            f"{path}: expected thresholds, found a damaged file ({fault}); remove that folder and "
            f"{again}"
        ) from fault
    check(place, again)
    return thresholds


def read_results(folder: Path, made_from: str, data: str) -> list[results.Result]:
    """Read the results of a run's evaluation; as `read_thresholds`, also in what is raised."""
    place = folder / "evaluation"
    _check_origin(place, "evaluate", made_from, data)
    check(place, AGAIN.format("evaluate"), ["manifest.json", "results.csv"])
    return results.read_csv(place / "results.csv")


def _check_origin(place: Path, command: str, made_from: str, data: str) -> None:
    """Raise an InputError unless what `command` wrote to `place` is of these models and data."""
    manifest = read_manifest(place)
    sources = manifest["settings"].get("data")  # of the healthy data set, or of each by name
    healthy = sources.get("healthy") if isinstance(sources, dict) else sources
    for what, expected, found in (
        ("models", made_from, manifest["made_from"]),
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
    """Return which of `names` is best on validation; without labels, "dense", or else "pixel".

    The best has the greatest AUPRC, the mean over those data sets where one is defined.
    """
    pooled = [row._replace(dataset="") for row in rows if row.score in names]
    chosen = results.select_scores(pooled).get(results.Choice("", level, "beyond", method))
    if chosen:
        return chosen
    return next((name for name in (DENSE, *PATCHES) if name in names), names[0])
