"""What studies of one file of tests share: each file has a `config` of its own."""

import pytest

from experiments import evaluate


@pytest.fixture(scope="module")
def workdir(study, config):
    """Return the working directory of the tiny study, with that of `config` evaluated in it."""
    evaluate.main(config, study)
    return study
