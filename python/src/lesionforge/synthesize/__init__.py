"""Lesion synthesis: intensity levels, lesion filling, the generator, transplant and painting (Salem et al., IEEE Access 2019)."""
