"""The paper's study: learn from HCP, evaluate on HCP Synth., ISLES 2015 and BraTS 2017.

    export CRADL_DATA=/data            # holds HCP, ISLES2015 and BraTS2017
    python -m experiments.synthesize --config=configs/hcp.py      # makes HCP_Synth from HCP
    python -m experiments.reproduce --config=configs/hcp.py

configs/README.md says how to get the data. The report prints the paper's values beside ours. On one
H200 the three trainings of a seed (215 s, 228 s and 426 s) take a quarter of an hour; on two CPU
cores the study would take months. Slices take 17 GB of disk, heatmaps up to 12 GB more.

Section 4.1 and Table 1. Of 992 HCP scans 98 are held out by seed: foreign objects are pasted into
them, 49 for validation and 49 for test, and no model ever sees them as healthy. The other 894 are
split into training and validation; the paper does not say how. From more than 992 scans, take
exactly 894 with --config.data.sets.healthy.splits.train=805 and likewise val=89, held_out=-1.

A split can also be given as a CSV file with the columns subject,split, for example
--config.data.sets.isles.split_file=isles.csv; a run leaves such files in its folder splits/.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from configs import default

# 165 slices of an HCP scan, 182 mm high (0.7 mm x 260), as Table 1: 145, once 10 are dropped at
# each end. ISLES (153 or 154 slices of 1 mm) and BraTS (155) keep their own.
HCP_SLICE_MM = 1.1

# Ends of a volume carry little brain: slices dropped at each. Table 1 counts all between them, the
# blank ones too.
OFFSET_TRAINING, OFFSET_EVALUATION = 20, 10


def get_config() -> ConfigDict:
    """Return the settings."""
    config = default.get_config()
    config.data.span = "volume"
    config.data.detrend = False
    config.data.field_mm = 217.7  # of an HCP volume, 0.7 mm x 311
    config.data.sets.update(
        {
            "healthy": {
                "paper": "HCP",
                "layout": "hcp",
                "path": "HCP",
                "offset": OFFSET_TRAINING,
                "slice_spacing_mm": HCP_SLICE_MM,
                "splits": {"held_out": 98, "val": 0.1, "train": -1},
                "split_file": placeholder(str),
            },
            "synth": {
                "paper": "HCP Synth.",
                "layout": "bids",
                "path": "HCP_Synth",
                "made_from": "healthy",  # from subjects held out there, by experiments.synthesize
                "offset": OFFSET_EVALUATION,
                "slice_spacing_mm": HCP_SLICE_MM,
                "splits": {"val": 49, "test": 49, "held_out": -1},
                "split_file": placeholder(str),
            },
            "isles": {
                "paper": "ISLES",
                "layout": "isles2015",
                "path": "ISLES2015/SISS/Training",
                "offset": OFFSET_EVALUATION,
                "splits": {"val": 8, "test": -1},
                "split_file": placeholder(str),
            },
            "brats": {
                "paper": "BraTS",
                "layout": "brats",
                "path": "BraTS2017",
                "offset": OFFSET_EVALUATION,
                "splits": {"val": 20, "test": -1},  # 266 in the paper; 285 are distributed
                "split_file": placeholder(str),
            },
        }
    )
    return config
