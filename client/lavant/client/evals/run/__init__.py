"""Evaluations of datasets."""
