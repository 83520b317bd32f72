"""Online evaluation: rules sample runs as they finish, and hand the samples to workers."""
