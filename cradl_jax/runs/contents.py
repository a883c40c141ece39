"""All that judging a scan takes, as plain values and arrays: the content of a run."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, NamedTuple

from cradl_jax import methods, scoring
from cradl_jax.densities import Density
from cradl_jax.errors import InputError
from cradl_jax.names import METHODS, VAES
from cradl_jax.objectives import Variables
from cradl_jax.runs.reference import Thresholds
from cradl_jax.storage.manifest import fingerprint
from cradl_jax.storage.schema import (
    ImageSize,
    Latent,
    NotNegative,
    Record,
    Seed,
    Several,
    Width,
    one_of,
    parse,
)


class NetworkShape(Record):
    """The shape and precision of a network, see `methods.network`."""

    features: Width
    latent: Latent
    head: Several[Width]
    dtype: Annotated[str, one_of(methods.DTYPES)]


class Loss(Record, extra="ignore"):
    """What scores take from the settings of the loss."""

    beta: NotNegative


class NetworkSettings(Record, extra="ignore"):
    """Those settings of a run that its network and scores are built from."""

    method: Annotated[str, one_of(METHODS)]
    seed: Seed
    size: ImageSize
    model: NetworkShape
    loss: Loss


class Model(NamedTuple):
    """A trained network.

    Attributes:
        encode: z = Enc(x), `(variables, images [N, H, W]) -> [N, latent]`.
        scorer: the method's own scores, None where it has none.
        variables: `params` and `batch_stats`.
    """

    encode: scoring.Encode
    scorer: scoring.Scorer | None
    variables: Variables


class RunContents(NamedTuple):
    """The content of a run.

    Attributes:
        manifest: settings (method, seed, size, model, ...), fingerprint of the training data,
            versions and commit of the training.
        variables: `params` and `batch_stats` of the network.
        densities: by name, on the network's representations.
        thresholds: label-free thresholds and percentiles, and what the training scans look like.
        chosen: the `score` and the `heatmap` that validation chose.
        fingerprint: of the network and its densities; the same scores have the same.
    """

    manifest: Mapping[str, Any]
    variables: Variables
    densities: Mapping[str, Density]
    thresholds: Thresholds
    chosen: Mapping[str, str]
    fingerprint: str


def fingerprint_of(variables: str, densities: Mapping[str, Density]) -> str:
    """Return the fingerprint of a network, given that of its variables, and of its densities."""
    return hashlib.sha256(f"{variables} {fingerprint(dict(densities))}".encode()).hexdigest()


def network(settings: Mapping[str, Any]) -> methods.Network:
    """Build the network of a run's settings.

    Raises:
        InputError: they are not those of a network.
    """
    known = _checked(settings)
    return methods.network(known.method, size=known.size, **dict(known.model))


def model(settings: Mapping[str, Any], variables: Variables) -> Model:
    """Return the trained network of a run's settings.

    Raises:
        InputError: they are not those of a network.
    """
    built = network(settings)
    scorer = methods.own_scorer(built, _checked(settings).loss.beta)
    return Model(methods.encoder_of(built), scorer, variables)


def _checked(settings: Mapping[str, Any]) -> NetworkSettings:
    try:
        return parse(NetworkSettings, settings)
    except ValueError as fault:
        raise InputError(f"the run's manifest, settings.{fault}; make the run again") from fault


def check(run: RunContents) -> None:
    """Raise a ValueError unless the parts of a run fit together: names, and lengths of arrays."""
    thresholds, settings = run.thresholds, run.manifest["settings"]
    has_own = settings["method"] in VAES
    for what, found, own in (
        ("scores", thresholds.slices, scoring.OWN_SCORES),
        ("heatmaps", thresholds.heatmaps, scoring.OWN_HEATMAPS),
    ):
        expected = {*run.densities, *(own if has_own else ())}
        if found.keys() != expected:
            raise ValueError(f"thresholds of the {what} {sorted(found)} for {sorted(expected)}")
    if thresholds.slicing["size"] != settings["size"]:
        raise ValueError(f"thresholds of slices of {thresholds.slicing['size']} pixels")
    latent = settings["model"]["latent"]
    for name, density in run.densities.items():
        if density.mean.shape != (latent,):
            raise ValueError(f"the density {name} of {density.mean.shape} for {latent} dimensions")


def scorers(
    trained: Model, densities: Mapping[str, Density]
) -> Sequence[tuple[scoring.Scorer, Any]]:
    """Return every scorer of a method with its parameters: the densities, and then its own."""
    with_params: list[tuple[scoring.Scorer, Any]] = [
        (scoring.nll(trained.encode), (trained.variables, dict(densities)))
    ]
    if trained.scorer is not None:
        with_params.append((trained.scorer, trained.variables))
    return with_params
