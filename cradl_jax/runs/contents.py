"""All that judging a scan takes, as plain values and arrays: the content of a run."""

import hashlib
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Annotated, Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from pydantic import Field
from typing_extensions import TypedDict

from cradl_jax import methods, scoring
from cradl_jax.data.scans.contrasts import CONTRASTS
from cradl_jax.data.scans.preparation import Preparation
from cradl_jax.densities import Density, dense
from cradl_jax.densities.dense import Dense, Joint
from cradl_jax.errors import InputError
from cradl_jax.evaluation.masks import HealthyMap
from cradl_jax.evaluation.thresholds import HealthyScores
from cradl_jax.names import BASELINE, METHODS, PATCHES, has_encoder
from cradl_jax.objectives import Variables
from cradl_jax.prediction.input_qc import Reference
from cradl_jax.scoring import Local
from cradl_jax.storage.manifest import fingerprint
from cradl_jax.storage.schema import (
    ImageSize,
    Latent,
    Neighbours,
    NotNegative,
    Positive,
    Record,
    Seed,
    Several,
    Whole,
    Width,
    one_of,
    parse,
)

Settings = TypeVar("Settings", bound="RunSettings")
NONE_FITTED: Mapping[str, Any] = MappingProxyType({})


class NetworkShape(Record):
    """The shape and precision of a network, see `methods.network`."""

    features: Width
    latent: Latent
    head: Several[Width]
    dtype: Annotated[str, one_of(methods.DTYPES)]


class Loss(Record, extra="ignore"):
    """What scores take from the settings of the loss."""

    beta: NotNegative


class RunSettings(Record, extra="ignore"):
    """Those settings of a run that tell what it is and which slices it takes."""

    method: Annotated[str, one_of((*METHODS, BASELINE))]
    seed: Seed
    size: ImageSize
    contrast: Annotated[str, one_of(CONTRASTS)]


class NetworkSettings(RunSettings):
    """Those settings of a run that its network and scores are built from."""

    model: NetworkShape
    loss: Loss


class Slicing(TypedDict):
    """How a scan is sliced, see `data.slices.preprocess.normalized_slices`."""

    size: ImageSize
    offset: Whole
    slice_spacing_mm: Positive | None
    field_mm: Positive
    detrend: bool


class Thresholds(Record):
    """What the scores of a run and its training scans look like: the content of thresholds.json.

    Attributes:
        slicing: how a scan is sliced: as those of the first anomalous data set, but always from
            the brain's ends.
        slices: each slice score on healthy validation scans.
        heatmaps: each post-processed heatmap on healthy validation scans.
        training: what the training scans look like.
        preparation: how `experiments.prepare` made them; None if it did not, or not all alike.
        neighbours: slices on either side that heatmaps are averaged over, see `scoring.over_scan`.
        restoration_steps: of a VAE, see `scoring.restored`; 0 without that score.
    """

    slicing: Slicing
    slices: Annotated[dict[str, HealthyScores], Field(min_length=1)]
    heatmaps: Annotated[dict[str, HealthyMap], Field(min_length=1)]
    training: Reference
    preparation: Preparation | None
    neighbours: Neighbours = 0
    restoration_steps: Whole = 0


class RunContents(NamedTuple):
    """The content of a run.

    Attributes:
        manifest: settings (method, seed, size, model, ...), fingerprint of the training data,
            versions and commit of the training.
        variables: `params` and `batch_stats` of the network; none of the baselines.
        densities: by name, on the network's representations; none where it has no encoder.
        of_features: by name, what models its features at each position, or for the baselines
            pixels; none like densities.
        thresholds: label-free thresholds and percentiles, and what the training scans look like.
        chosen: the `score` and the `heatmap` that validation chose.
        fingerprint: of the network and its densities; the same scores have the same.
        card: the model card, Markdown; None of a folder, and of files that have none.
    """

    manifest: Mapping[str, Any]
    variables: Variables
    densities: Mapping[str, Density]
    of_features: Mapping[str, Local]
    thresholds: Thresholds
    chosen: Mapping[str, str]
    fingerprint: str
    card: str | None = None


def fingerprint_of(
    variables: str | None,
    densities: Mapping[str, Density] = NONE_FITTED,
    of_features: Mapping[str, Local] = NONE_FITTED,
) -> str:
    """Return the fingerprint of a network, given that of its variables, and of its densities.

    The baselines have no variables.
    """
    fitted = {**densities, **of_features}
    if variables is None:
        return fingerprint(fitted)
    return hashlib.sha256(f"{variables} {fingerprint(fitted)}".encode()).hexdigest()


def network(settings: Mapping[str, Any]) -> methods.Network:
    """Build the network of a run's settings.

    Raises:
        InputError: they are not those of a network.
    """
    checked = _checked(NetworkSettings, settings)
    return methods.network(checked.method, size=checked.size, **dict(checked.model))


def template(settings: Mapping[str, Any]) -> Variables:
    """Return structure and shapes of the variables of a run with these settings."""
    built = network(settings)
    return jax.eval_shape(lambda: methods.initial_variables(built, 0, settings["size"]))


def _checked(kind: type[Settings], settings: Mapping[str, Any]) -> Settings:
    try:
        return parse(kind, settings)
    except ValueError as fault:
        raise InputError(f"the run's manifest, settings.{fault}; make the run again") from fault


def check(run: RunContents) -> None:
    """Raise a ValueError unless the parts of a run fit together: names, and lengths of arrays."""
    thresholds, settings = run.thresholds, run.manifest["settings"]
    _checked(RunSettings, settings)
    modelled = settings["method"] == BASELINE or has_encoder(settings["method"])
    if modelled != bool(run.of_features):
        raise ValueError(
            f"{len(run.of_features)} models of features for the method {settings['method']}"
        )
    own = scoring.own_scores(settings["method"], thresholds.restoration_steps)
    for what, found, of_method in (
        ("scores", thresholds.slices, own.scores),
        ("heatmaps", thresholds.heatmaps, own.heatmaps),
    ):
        expected = {*run.densities, *run.of_features, *of_method}
        if found.keys() != expected:
            raise ValueError(f"thresholds of the {what} {sorted(found)} for {sorted(expected)}")
    if thresholds.slicing["size"] != settings["size"]:
        raise ValueError(f"thresholds of slices of {thresholds.slicing['size']} pixels")
    for name, density in run.densities.items():
        latent = settings["model"]["latent"]
        if density.mean.shape != (latent,):
            raise ValueError(f"the density {name} of {density.mean.shape} for {latent} dimensions")
    for name, one in run.of_features.items():
        _check_features(run, name, one)


def _check_features(run: RunContents, name: str, one: Local) -> None:
    """Raise a ValueError unless what models features fits those of a run's network, or pixels."""
    settings = run.manifest["settings"]
    size = settings["size"]
    images = jax.ShapeDtypeStruct((1, size, size), jnp.float32)
    if isinstance(one, Dense):
        grid = jax.eval_shape(lambda x: dense.patches(x, PATCHES[name]), images)
        found, expected = one.mean.shape[1:], grid.shape[1:]
    else:
        features_of = methods.features_of(network(settings), name)
        features = jax.eval_shape(features_of, run.variables, images).shape
        found, expected = one.projection.shape[:1], features[3:]
    if isinstance(one, Joint):
        found = (*found, *one.features.mean.shape[1:3], *one.pixels.mean.shape[1:])
        expected = (*expected, *features[1:3], size, size, 1)
    if found != expected:
        raise ValueError(f"{name} of features of the sizes {found} for {expected}")


def scorers(
    settings: Mapping[str, Any],
    variables: Variables,
    densities: Mapping[str, Density],
    of_features: Mapping[str, Local],
    restoration_steps: int,
) -> Sequence[tuple[scoring.Scorer, Any]]:
    """Return the scorers of a run with their parameters: densities, those of features, its own.

    A network without an encoder has its own alone. For `restoration_steps` see `scoring.restored`.

    Raises:
        InputError: the settings are not those of a network or of the baselines.
    """
    if settings["method"] == BASELINE:
        return [(scoring.baseline, dict(of_features))]
    built = network(settings)
    with_params: list[tuple[scoring.Scorer, Any]] = []
    if densities:
        encode = methods.encoder_of(built)
        with_params.append((scoring.nll(encode), (variables, dict(densities))))
    with_params += [
        (scoring.local(methods.features_of(built, name)), (variables, one))
        for name, one in of_features.items()
    ]
    own = methods.own_scorers(
        built, _checked(NetworkSettings, settings).loss.beta, restoration_steps
    )
    return [*with_params, *((scorer, variables) for scorer in own)]
