"""Records LangChain and LangGraph: `chain.invoke(x, config={"callbacks": [LavantCallbackHandler(client)]})`.

For `ainvoke` and the like, with AsyncClient, it is AsyncLavantCallbackHandler. Needs `pip install 'lavant[langchain]'`.
"""

from lavant.client.integrations._extras import extra

with extra("langchain"):
    from lavant.client.integrations._langchain_async import AsyncLavantCallbackHandler
    from lavant.client.integrations._langchain_sync import LavantCallbackHandler

__all__ = ["AsyncLavantCallbackHandler", "LavantCallbackHandler"]
