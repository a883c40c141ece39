"""Commands as processes that are forked with everything imported: none waits for its imports."""

import multiprocessing
import os
import pkgutil
import runpy
import sys
import tempfile
from pathlib import Path
from subprocess import CompletedProcess

import jax

import cradl_jax

REPOSITORY = Path(__file__).resolve().parents[2]
CONTEXT = multiprocessing.get_context("forkserver")
MODULES = [module.name for module in pkgutil.walk_packages(cradl_jax.__path__, "cradl_jax.")]
STUDY = ["experiments.study.training", "experiments.study.runs"]
CONTEXT.set_forkserver_preload([*MODULES, *STUDY, "nilearn.datasets"])
os.environ["PYTHONPATH"] = str(REPOSITORY)  # of the server
QUICKLY = "jax_disable_most_optimizations"


class Command:
    """A process of `python -m experiments.<name>` with its arguments, started at once."""

    def __init__(self, name: str, *arguments: str):
        self.arguments = [name, *arguments]
        self.printed = tempfile.TemporaryDirectory(prefix="cradl-command-")
        outputs = tuple(Path(self.printed.name, stream) for stream in ("stdout", "stderr"))
        quickly = jax.config.read(QUICKLY)
        self.process = CONTEXT.Process(target=_run, args=(self.arguments, outputs, quickly))
        self.process.start()

    def end(self, seconds: float = 300) -> CompletedProcess:
        """Wait for its end; return its exit status and what it printed."""
        self.process.join(seconds)
        try:
            assert self.process.exitcode is not None, "hangs"
            texts = [Path(self.printed.name, name).read_text() for name in ("stdout", "stderr")]
        finally:
            self.process.kill()
            self.printed.cleanup()
        return CompletedProcess(self.arguments, self.process.exitcode, *texts)


def run(name: str, *arguments: str) -> CompletedProcess:
    """Run `python -m experiments.<name>` with its arguments to its end."""
    return Command(name, *arguments).end()


def _run(arguments: list[str], outputs: tuple[Path, Path], quickly: bool) -> None:
    redirect(*outputs)
    jax.config.update(QUICKLY, quickly)
    os.chdir(REPOSITORY)
    sys.argv = list(arguments)
    runpy.run_module(f"experiments.{arguments[0]}", run_name="__main__", alter_sys=True)


def redirect(stdout: Path, stderr: Path) -> None:
    """Make this process print to files."""
    for path, stream in ((stdout, sys.stdout), (stderr, sys.stderr)):
        with path.open("a") as file:
            os.dup2(file.fileno(), stream.fileno())
