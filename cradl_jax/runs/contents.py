"""All that judging a scan takes, as plain values and arrays: the content of a run."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from cradl_jax import methods, scoring
from cradl_jax.densities import Density
from cradl_jax.errors import InputError
from cradl_jax.evaluation.thresholds import Thresholds
from cradl_jax.objectives import Variables
from cradl_jax.storage.manifest import fingerprint
from cradl_jax.storage.schema import image_size, number, one_of_rule, several, table

WIDTH = number(1, 1 << 16, whole=True)
NETWORK = {
    "method": one_of_rule(methods.METHODS),
    "seed": number(0, (1 << 31) - 1, whole=True),
    "size": image_size,
    "model": table(
        {
            "features": WIDTH,
            "latent": WIDTH,
            "head": several(WIDTH, distinct=False),
            "dtype": one_of_rule(methods.DTYPES),
        }
    ),
    "loss": lambda value: number(0)(value.get("beta") if isinstance(value, Mapping) else value),
}
"""Rules for those settings of a run that its network and scores are built from."""


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

    @property
    def identity(self) -> str:
        """Fingerprint of the variables, which the densities on it carry on."""
        return fingerprint(self.variables)


class RunContents(NamedTuple):
    """The content of a run.

    Attributes:
        manifest: settings (method, seed, size, model, ...), fingerprint of the training data,
            versions and commit of the training.
        variables: `params` and `batch_stats` of the network.
        densities: by name, on the network's representations.
        thresholds: what is usual among healthy validation scans.
        chosen: the `score` and the `heatmap` that validation chose.
    """

    manifest: Mapping[str, Any]
    variables: Variables
    densities: Mapping[str, Density]
    thresholds: Thresholds
    chosen: Mapping[str, str]

    @property
    def identity(self) -> str:
        """Fingerprint of the network and its densities."""
        return identity_of(self.variables, self.densities)


def identity_of(variables: Variables, densities: Mapping[str, Density]) -> str:
    """Fingerprint of a network and the densities on it: the same scores have the same."""
    return fingerprint((variables, dict(densities)))


def network(settings: Mapping[str, Any]) -> methods.Network:
    """The network of a run's settings.

    Raises:
        InputError: they are not those of a network.
    """
    known = settings if isinstance(settings, Mapping) else {}
    for name, rule in NETWORK.items():
        if fault := rule(known.get(name)):
            raise InputError(f"the run's manifest, settings.{name}: {fault}; make the run anew")
    return methods.network(settings["method"], size=settings["size"], **settings["model"])


def model(settings: Mapping[str, Any], variables: Variables) -> Model:
    """The trained network of a run's settings.

    Raises:
        InputError: they are not those of a network.
    """
    built = network(settings)
    scorer = methods.own_scorer(built, settings["loss"]["beta"])
    return Model(methods.encoder_of(built), scorer, variables)


def check(run: RunContents) -> None:
    """Raise a ValueError unless the parts of a run fit together: names, and lengths of arrays."""
    known, settings = run.thresholds, run.manifest["settings"]
    has_own = settings["method"] != "cradl"
    for what, found, own in (
        ("scores", known.slices, scoring.OWN_SCORES),
        ("heatmaps", known.heatmaps, scoring.OWN_HEATMAPS),
    ):
        expected = {*run.densities, *(own if has_own else ())}
        if found.keys() != expected:
            raise ValueError(f"thresholds of the {what} {sorted(found)} for {sorted(expected)}")
    if known.slicing["size"] != settings["size"]:
        raise ValueError(f"thresholds of slices of {known.slicing['size']} pixels")
    latent = settings["model"]["latent"]
    for name, density in run.densities.items():
        if density.mean.shape != (latent,):
            raise ValueError(f"the density {name} of {density.mean.shape} for {latent} dimensions")


def scorers(
    trained: Model, densities: Mapping[str, Density]
) -> Sequence[tuple[scoring.Scorer, Any]]:
    """Every scorer of a method with its parameters: the densities, and then its own."""
    found = [(scoring.nll(trained.encode), (trained.variables, dict(densities)))]
    if trained.scorer is not None:
        found.append((trained.scorer, trained.variables))
    return found


def density_names(components: Sequence[int]) -> list[str]:
    """The densities of a run with mixtures of so many components: gmm1, gmm2, ..., flow."""
    return [*(f"gmm{number}" for number in components), "flow"]
