"""Integrations whose framework is not installed."""

import subprocess
import sys

import pytest

NEEDED = {
    "pydantic_ai": ("pydantic_ai", "pydantic-ai"),
    "agent_streaming": ("pydantic_ai", "pydantic-ai"),
    "langchain": ("langchain_core.callbacks", "langchain"),
    "openai_agents": ("agents", "openai-agents"),
    "opentelemetry": ("opentelemetry.sdk.trace", "otel"),
    "pydantic_deep": ("subagents_pydantic_ai", "pydantic-deep"),
}


@pytest.mark.parametrize("name", NEEDED)
def test_an_integration_without_its_framework_names_the_extra(name: str) -> None:
    package, extra = NEEDED[name]
    code = f"import sys; sys.modules[{package!r}] = None; import lavant.client.integrations.{name}"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    last = result.stderr.strip().splitlines()[-1]
    assert last == f"ImportError: {package} is missing or too old: pip install 'lavant[{extra}]'"
