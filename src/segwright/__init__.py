"""segwright: self-configuring biomedical image segmentation, as a library and as a Snakemake workflow."""

__version__ = "0.1.0"
