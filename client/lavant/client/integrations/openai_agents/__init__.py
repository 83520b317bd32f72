"""Records the OpenAI Agents SDK: `LavantRunner(client)` stands in for its `Runner`.

Needs `pip install 'lavant[openai-agents]'`.
"""

from lavant.client.integrations.extras import extra

with extra("openai-agents"):
    from lavant.client.integrations.openai_agents.hooks import LavantHooks
    from lavant.client.integrations.openai_agents.runner import LavantRunner

__all__ = ["LavantHooks", "LavantRunner"]
