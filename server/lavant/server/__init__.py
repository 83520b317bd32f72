"""The lavant service: stores runs' events and streams them over gRPC."""
