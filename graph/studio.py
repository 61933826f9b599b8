"""The compiled graph that `langgraph.json` names. LangGraph Studio brings its own checkpointer."""

from graph.build import build_graph

graph = build_graph()
