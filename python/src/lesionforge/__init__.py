"""lesionforge: a multiple-sclerosis lesion segmenter from very few annotated scans."""

__version__ = "0.1.0"
