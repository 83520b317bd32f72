"""Queries of the index: lists, aggregates and comparisons of scores."""
