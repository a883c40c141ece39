"""CRADL in JAX: contrastive representations for unsupervised anomaly detection and localization."""

__version__ = "0.1.0"
