"""Make a study's config ready: checked, with the settings of a smoke run and its data sets."""

from collections.abc import Collection
from pathlib import Path

from ml_collections import ConfigDict

from cradl_jax.errors import InputError
from cradl_jax.storage.manifest import flat
from experiments.study import config_schema


def prepare(config: ConfigDict, given: Collection[str] = ()) -> None:
    """Check a config and put in place what it says in short: methods, a smoke run, lists of scans.

    A smoke run changes no setting that was `given` on the command line, such as "train.epochs".

    Raises:
        InputError: a setting is unknown, missing or unfit.
    """
    if isinstance(methods := config.get("methods"), tuple):
        config.methods = tuple(method for part in methods for method in str(part).split(","))
    config_schema.check(config)
    if config.get("smoke"):
        smoke = flat(config.smoke_settings.to_dict())
        config.update_from_flattened_dict(
            {name: value for name, value in smoke.items() if name not in given}
        )
    if "healthy" in config.data:
        config.data.sets = listed_sets(config)


def listed_sets(config: ConfigDict) -> ConfigDict:
    """Return the data sets of the CSV files `config.data.healthy` and `config.data.anomalous`.

    Without an anomalous one a study trains, fits and finds thresholds, and measures nothing.

    Raises:
        InputError: the healthy one is not given, or two have one name.
    """
    healthy, anomalous = config.data.healthy, config.data.anomalous
    if not healthy:
        raise InputError(
            "config.data: expected a CSV file of healthy scans, found "
            f"healthy={healthy!r}; give --config.data.healthy=a.csv and, to measure how well "
            "anomalies are found, --config.data.anomalous=b.csv[,c.csv]"
        )
    files = {"healthy": Path(healthy).expanduser().absolute()}
    for path in (Path(one).expanduser() for one in (anomalous or "").split(",") if one):
        try:
            config_schema.fit_name(path.stem)
        except ValueError as expected:
            raise InputError(
                f"{path}: expected {expected}, found {path.stem!r}; rename the file"
            ) from expected
        if path.stem in files:
            raise InputError(f"{path}: a second data set named {path.stem!r}; rename the file")
        files[path.stem] = path.absolute()
    shared = {"layout": "csv", "offset": config.data.offset}
    sets = {name: {**shared, "path": str(path)} for name, path in files.items()}
    return ConfigDict(sets, sort_keys=False)
