"""Cascade: settings and card of a trained cascade, which more than one stage reads. No network, so that CHECK stays light.

A package of its own, so that an edit to it reruns the stages that read a cascade's card, and not the generator's training.
"""
