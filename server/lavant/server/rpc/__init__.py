"""The gRPC face: requests checked, services called, errors turned into statuses."""
