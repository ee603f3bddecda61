"""Measure a lesion mask against a reference, and compare the arms of an experiment."""
