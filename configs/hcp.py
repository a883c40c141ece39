"""The paper's study: learn from HCP, evaluate on HCP Synth., ISLES 2015 and BraTS 2017.

    export CRADL_DATA=/data            # holds the four folders below
    python -m experiments.reproduce --config=configs/hcp.py

Section 4.1: 894 healthy scans for training and validation, 98 left out for HCP Synth. (49 for
validation, 49 for test); ISLES 8 and 20, BraTS 20 and 266. Ends of a volume carry little brain:
20 slices are dropped at each in training, 10 in evaluation.
"""

from ml_collections import ConfigDict

from configs import default


def get_config() -> ConfigDict:
    config = default.get_config()
    config.data.slice_spacing_mm = 1.0  # HCP is 0.7 mm, the others 1 mm
    config.data.sets = ConfigDict(
        {
            "healthy": {
                "layout": "hcp",
                "path": "HCP",
                "offset": 20,
                "splits": {"train": -1, "val": 0.1},
            },
            "synth": {
                "layout": "bids",
                "path": "HCP_Synth",
                "offset": 10,
                "splits": {"val": 0.5, "test": -1},
            },
            "isles": {
                "layout": "isles2015",
                "path": "ISLES2015/SISS/Training",
                "offset": 10,
                "splits": {"val": 8, "test": -1},
            },
            "brats": {
                "layout": "brats",
                "path": "BraTS2017",
                "offset": 10,
                "splits": {"val": 20, "test": -1},
            },
        }
    )
    return config
