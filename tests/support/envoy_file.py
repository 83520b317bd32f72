"""Writes the configuration of an Envoy before one server, for tests in other languages.

`python -m support.envoy_file FOLDER GRPC HTTP ADMIN ORIGIN` prints the path of the file and the addresses of Envoy: of
HTTP and of its administrator.
"""

import sys
from pathlib import Path

from support.envoy import Envoy


def main(folder: str, grpc: str, http: str, admin: str, *origins: str) -> None:
    """Write the file into a folder, for pages of some origins."""
    envoy = Envoy(Path(folder), [grpc], [http], [admin], origins=origins)
    print(envoy.file, envoy.http, envoy.admin)


if __name__ == "__main__":
    main(*sys.argv[1:])
