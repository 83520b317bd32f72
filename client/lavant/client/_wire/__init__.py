"""Conversion between the contract and Python."""
