"""Gather a study's results: results.csv, tables.md, figures and one page, report.html.

    python -m experiments.report --config=configs/phantom.py [--workdir=runs/phantom]

Needs the slices, the trained encoders of the config's methods with their densities and thresholds,
and what `experiments.evaluate` measured, for each of `config.seeds`. Writes WORKDIR/results.csv,
tables.md, figures/ and report.html.
"""

from pathlib import Path

from ml_collections import ConfigDict

from experiments.study import app


def main(config: ConfigDict, workdir: Path) -> None:
    """Write the report."""
    from experiments.study import report  # imports the library

    print(f"report: {report.write(config, workdir).resolve().as_uri()}")


if __name__ == "__main__":
    app.run(main)
