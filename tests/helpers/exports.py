"""What an exported run must keep."""

from pathlib import Path

import numpy as np

import cradl_jax
from cradl_jax.runs import archive, verification
from cradl_jax.runs.run import Run


def check(run: Run, scan: Path, path: Path) -> None:
    """Assert that a run, exported to `path`, verifies and judges a scan the same to the bit."""
    archive.write(path, run.contents)
    assert not [check for check in verification.checks(path) if check.faults]
    again = cradl_jax.load_run(path)
    assert again.contents.fingerprint == run.contents.fingerprint
    in_use = run.score_name, run.heatmap_name
    expected, found = (one.using(*in_use).predict(scan) for one in (run, again))
    np.testing.assert_array_equal(found.anomaly_map, expected.anomaly_map)
    np.testing.assert_array_equal(found.scores, expected.scores)
