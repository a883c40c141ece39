"""What every entry point shares: flags, the working directory, and how faults are reported."""

import sys
from collections.abc import Callable
from pathlib import Path

from absl import app, flags
from ml_collections import ConfigDict, config_flags

from cradl_jax.errors import InputError

CONFIG = config_flags.DEFINE_config_file(
    "config", None, "Study to run, e.g. configs/phantom.py; --config.seed=1 overrides a value."
)
WORKDIR = flags.DEFINE_string(
    "workdir", None, "Folder that holds everything the study writes (default: runs/<config name>)."
)
flags.mark_flag_as_required("config")


def run(main: Callable[[ConfigDict, Path], None]) -> None:
    """Parse flags, then call `main(config, workdir)`; an `InputError` ends in exit status 2."""

    def guarded(arguments: list[str]) -> None:
        if len(arguments) > 1:
            sys.exit(f"error: unknown argument {arguments[1]!r}; every option starts with --")
        config = CONFIG.value
        config.lock()
        name = Path(config_flags.get_config_filename(flags.FLAGS["config"])).stem
        workdir = Path(WORKDIR.value or Path("runs") / name)
        try:
            main(config, workdir)
        except InputError as fault:
            print(f"error: {fault}", file=sys.stderr)
            sys.exit(2)
        except KeyboardInterrupt:
            print("interrupted; the same command continues from what is finished", file=sys.stderr)
            sys.exit(130)

    app.run(guarded)
