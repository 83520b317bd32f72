"""Rules of the contract that client and server share, so that each accepts what the other sends."""
