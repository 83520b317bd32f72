"""Imports the modules of the installed lavant under some prefixes, but for those under !prefixes."""

import importlib
import sys
from importlib.metadata import files


def main(prefixes: list[str]) -> None:
    installed = [str(file) for file in files("lavant") or []]
    for package in ("lavant/client", "lavant/server", "lavant/v1"):
        assert f"{package}/py.typed" in installed, f"{package} is untyped"
    names = [".".join(file[:-3].split("/")).removesuffix(".__init__") for file in installed if file.endswith(".py")]
    wanted = tuple(prefix for prefix in prefixes if not prefix.startswith("!"))
    unwanted = tuple(prefix[1:] for prefix in prefixes if prefix.startswith("!"))
    imported = [name for name in names if name.startswith(wanted) and not name.startswith(unwanted)]
    for name in imported:
        if not name.endswith(".__main__"):
            importlib.import_module(name)
    print(f"imported {len(imported)} modules")


if __name__ == "__main__":
    main(sys.argv[1:])
