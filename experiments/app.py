"""What every entry point shares: flags, the working directory, and how faults are reported."""

import sys
from collections.abc import Callable
from pathlib import Path

from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags

from cradl_jax.errors import InputError

CONFIG = config_flags.DEFINE_config_file(
    "config", None, "Study to run, e.g. configs/phantom.py; --config.seed=1 overrides a value."
)
WORKDIR = flags.DEFINE_string(
    "workdir", None, "Folder that holds everything the study writes (default: runs/<config name>)."
)
flags.mark_flag_as_required("config")


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
        if path.stem in files:
            raise InputError(f"{path}: a second data set named {path.stem!r}; rename the file")
        files[path.stem] = path.absolute()
    how = {"layout": "csv", "offset": config.data.offset}
    return ConfigDict({name: {**how, "path": str(path)} for name, path in files.items()})


def run(main: Callable[[ConfigDict, Path], None]) -> None:
    """Parse flags, then call `main(config, workdir)`; an `InputError` ends in exit status 2."""

    def guarded(arguments: list[str]) -> None:
        if len(arguments) > 1:
            sys.exit(f"error: unknown argument {arguments[1]!r}; every option starts with --")
        logging.set_verbosity(logging.WARNING)
        config = CONFIG.value
        name = Path(config_flags.get_config_filename(flags.FLAGS["config"])).stem
        if config.get("smoke"):
            config.update(config.smoke_settings)
            name += "-smoke"
        workdir = Path(WORKDIR.value or Path("runs") / name)
        try:
            config.methods = tuple(name for part in config.methods for name in part.split(","))
            if "healthy" in config.data:
                config.data.sets = listed_sets(config)
            main(config, workdir)
        except InputError as fault:
            print(f"error: {fault}", file=sys.stderr)
            sys.exit(2)
        except KeyboardInterrupt:
            print("interrupted; the same command continues from what is finished", file=sys.stderr)
            sys.exit(130)

    app.run(guarded)
