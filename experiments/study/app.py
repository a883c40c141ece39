"""What the commands of a study share: their flags, which name its config and working directory."""

from collections.abc import Callable
from pathlib import Path

from absl import flags
from ml_collections import ConfigDict, config_flags

from cradl_jax.errors import InputError
from cradl_jax.storage.files import require_writable
from experiments.cli import command

flags.disclaim_key_flags()  # they are those of the command that calls `run`, in its --help
CONFIG = config_flags.DEFINE_config_file(
    "config", None, "Study to run, e.g. configs/phantom.py; --config.seed=1 overrides a value."
)
WORKDIR = flags.DEFINE_string(
    "workdir",
    None,
    "Folder that holds everything the study writes (default: runs/<config name>, and with "
    "--config.smoke=True runs/<config name>-smoke).",
)
flags.mark_flag_as_required("config")
SMALLER = (
    "lower config.train.batch_size (training), config.score.batch_size (densities, thresholds, "
    "evaluation), config.flow.batch_size (RealNVP) or config.data.workers (scans at once); a "
    "smaller model has lower config.data.size, config.model.features or config.gmm.components"
)


def study() -> tuple[ConfigDict, Path]:
    """Return the config and the working directory that the command line names, both checked.

    Raises:
        InputError: it is no config, a setting is unknown, missing or unfit, or the directory cannot
            be written to.
    """
    from experiments.study import config as study_config  # imports NumPy and pydantic

    flag = flags.FLAGS["config"]
    file = config_flags.get_config_filename(flag)
    config = CONFIG.value
    if not isinstance(config, ConfigDict):
        raise InputError(
            f"--config={file}: expected get_config() to return a ConfigDict, found {config!r}; "
            "start from configs/default.py"
        )
    study_config.prepare(config.lock(), config_flags.get_override_values(flag))
    name = Path(file).stem + ("-smoke" if config.get("smoke") else "")
    workdir = Path(WORKDIR.value or Path("runs") / name).expanduser()
    require_writable(workdir, "--workdir")
    return config, workdir


def run(main: Callable[[ConfigDict, Path], None]) -> None:
    """Parse flags, then call `main(config, workdir)`; see `command.run`."""
    flags.declare_key_flag("config")
    flags.declare_key_flag("workdir")
    command.run(lambda: main(*study()), smaller=SMALLER)
