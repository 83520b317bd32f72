"""Tells whether the declared lower bounds are true: `make check-oldest`.

Builds the wheel, installs it beside the oldest dependencies that it declares, in a venv that is
thrown away, and imports all its modules. Needs a Python that those old versions have wheels for: 3.11.
"""

import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]

# Extras to install, each beside what is there already, and the modules that must import then.
# The frameworks come last: they bring a newer pydantic than we ask for.
FRAMEWORKS = ("lavant.client.evals", "lavant.client.integrations")
TRACING = ("lavant.server.observability.tracing",)
NATS = ("lavant.server.commands.copying", "lavant.server.store.jetstream")
INSTALLS = (
    ("", ["lavant.v1", "lavant.client", "!lavant.client.cli", *(f"!{module}" for module in FRAMEWORKS)]),
    ("server,cli", ["lavant", *(f"!{module}" for module in (*FRAMEWORKS, *TRACING, *NATS))]),
    ("evals,langchain,nats,openai-agents,otel,pydantic-ai,pydantic-deep", ["lavant"]),
)


def lower_bounds(extras: str) -> list[str]:
    """The oldest version of each direct dependency of some extras, or of the base, as a pin."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = {"": project["dependencies"], **project["optional-dependencies"]}
    return sorted({requirement.replace(">=", "==") for extra in extras.split(",") for requirement in declared[extra]})


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        python = Path(scratch, "venv/bin/python")
        pip = [str(python), "-m", "pip", "--quiet"]
        subprocess.run([sys.executable, "-m", "venv", python.parents[1]], check=True)
        subprocess.run([*pip, "install", "--upgrade", "pip"], check=True)
        subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", scratch, str(ROOT)], check=True)
        (wheel,) = Path(scratch).glob("lavant-*.whl")
        for extras, modules in INSTALLS:
            pins = lower_bounds(extras)
            requirement = f"lavant[{extras}]" if extras else "lavant"
            print(f"{requirement} with {' '.join(pins)}", flush=True)
            subprocess.run([*pip, "install", f"{requirement} @ {wheel.as_uri()}", *pins], check=True)
            subprocess.run([python, ROOT / "tests/tree/import_installed.py", *modules], check=True, cwd=scratch)


if __name__ == "__main__":
    main()
