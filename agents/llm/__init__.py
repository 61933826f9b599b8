"""The crew with models behind it, and the only agents that know LangChain."""
