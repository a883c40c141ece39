"""All that judging a scan takes, as plain values and arrays: the content of a run."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from cradl_jax import methods, scoring
from cradl_jax.checkpoints import fingerprint
from cradl_jax.densities import Density
from cradl_jax.objectives import Variables
from cradl_jax.thresholds import Thresholds


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


class Parts(NamedTuple):
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
    """The network of a run's settings."""
    return methods.network(settings["method"], size=settings["size"], **settings["model"])


def model(settings: Mapping[str, Any], variables: Variables) -> Model:
    """The trained network of a run's settings."""
    built = network(settings)
    scorer = methods.own_scorer(built, settings["loss"]["beta"])
    return Model(methods.encoder_of(built), scorer, variables)


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
