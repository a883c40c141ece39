"""What the commands of a study share: its config and its working directory."""

import tempfile
from collections.abc import Callable
from pathlib import Path

from absl import flags
from ml_collections import ConfigDict, config_flags

from cradl_jax.errors import InputError, cause
from experiments.cli import command
from experiments.study import config_schema

flags.disclaim_key_flags()  # they are those of the command that calls `run`, in its --help
CONFIG = config_flags.DEFINE_config_file(
    "config", None, "Study to run, e.g. configs/phantom.py; --config.seed=1 overrides a value."
)
WORKDIR = flags.DEFINE_string(
    "workdir", None, "Folder that holds everything the study writes (default: runs/<config name>)."
)
flags.mark_flag_as_required("config")
SMALLER = (
    "lower config.train.batch_size (training), config.score.batch_size (densities, thresholds, "
    "evaluation), config.flow.batch_size (RealNVP) or config.data.workers (scans at once); a "
    "smaller model has lower config.data.size, config.model.features or config.gmm.components"
)


def listed_sets(config: ConfigDict) -> ConfigDict:
    """The data sets that `config.data.healthy` and `config.data.anomalous` list as CSV files.

    Raises:
        InputError: one is not given, or two have one name.
    """
    healthy, anomalous = config.data.healthy, config.data.anomalous
    if not healthy or not anomalous:
        raise InputError(
            "config.data: expected CSV files of healthy and anomalous scans, found "
            f"healthy={healthy!r} and anomalous={anomalous!r}; "
            "give --config.data.healthy=a.csv --config.data.anomalous=b.csv[,c.csv]"
        )
    files = {"healthy": Path(healthy).absolute()}
    for path in map(Path, anomalous.split(",")):
        if fault := config_schema.check_name(path.stem):
            raise InputError(f"{path}: {fault}; rename the file")
        if path.stem in files:
            raise InputError(f"{path}: a second data set named {path.stem!r}; rename the file")
        files[path.stem] = path.absolute()
    how = {"layout": "csv", "offset": config.data.offset}
    return ConfigDict({name: {**how, "path": str(path)} for name, path in files.items()})


def loaded() -> ConfigDict:
    """The config that the command line names.

    Raises:
        InputError: it is no config.
    """
    config = CONFIG.value
    if not isinstance(config, ConfigDict):
        raise InputError(
            f"--config={config_flags.get_config_filename(flags.FLAGS['config'])}: expected "
            f"get_config() to return a ConfigDict, found {config!r}; start from configs/default.py"
        )
    return config.lock()


def study() -> tuple[ConfigDict, Path]:
    """The config and the working directory that the command line names, both checked.

    Raises:
        InputError: a setting is unknown, missing or unfit, or the directory cannot be written to.
    """
    config = loaded()
    name = Path(config_flags.get_config_filename(flags.FLAGS["config"])).stem
    if isinstance(methods := config.get("methods"), tuple):
        config.methods = tuple(method for part in methods for method in str(part).split(","))
    config_schema.check(config)
    if config.get("smoke"):
        config.update(config.smoke_settings)
        name += "-smoke"
    if "healthy" in config.data:
        config.data.sets = listed_sets(config)
    workdir = Path(WORKDIR.value or Path("runs") / name)
    _check_writable(workdir)
    return config, workdir


def _check_writable(workdir: Path) -> None:
    """Raise an InputError unless the working directory can be made and written to."""
    place = next(folder for folder in (workdir, *workdir.parents) if folder.exists())
    try:
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as fault:
        raise InputError(
            f"{workdir}: expected a folder that can be written to, found {cause(fault)}; name "
            "another with --workdir"
        ) from fault


def run(main: Callable[[ConfigDict, Path], None]) -> None:
    """Parse flags, then call `main(config, workdir)`; see `command.run`."""
    flags.declare_key_flag("config")
    flags.declare_key_flag("workdir")
    command.run(lambda: main(*study()), smaller=SMALLER)
