"""gRPC services: they check requests, call the engine and the other services, and turn errors into statuses."""
