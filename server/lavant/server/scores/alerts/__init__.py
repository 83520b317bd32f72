"""Alerts of rules: their thresholds, the log of their changes, and webhooks."""
