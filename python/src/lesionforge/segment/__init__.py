"""Segment: lesion probability and mask of one scan with a trained cascade, on the working grid and the native ones."""
