"""The worker that evaluates the samples of a rule."""
