"""Authentication and authorization: principals, credentials, scopes."""
