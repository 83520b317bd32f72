"""Records LangChain and LangGraph: `chain.invoke(x, config={"callbacks": [LavantCallbackHandler(client)]})`.

For `ainvoke` and the like, with AsyncClient, it is AsyncLavantCallbackHandler. Needs `pip install 'lavant[langchain]'`.
"""

from lavant.client.integrations.extras import extra

with extra("langchain"):
    from lavant.client.integrations.langchain.handlers import AsyncLavantCallbackHandler, LavantCallbackHandler

__all__ = ["AsyncLavantCallbackHandler", "LavantCallbackHandler"]
