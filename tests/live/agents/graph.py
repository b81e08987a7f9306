"""A graph of LangGraph whose one node asks ChatOpenAI, token by token. It asks again after a 429, and dies of any other error."""

import signal
import sys
import time

import openai
from langchain_openai import ChatOpenAI
from langgraph.graph import END, START, MessagesState, StateGraph

model = ChatOpenAI(model="m", streaming=True)


def think(state: MessagesState) -> dict:
    return {"messages": [model.invoke(state["messages"])]}


graph = StateGraph(MessagesState).add_node("think", think).add_edge(START, "think").add_edge("think", END).compile()
state = {"messages": [("user", "What next?")]}
print("ready", flush=True)
sys.stdin.readline()
signal.alarm(90)
print("hanging", time.monotonic_ns(), flush=True)
while True:
    try:
        state = graph.invoke(state)
    except openai.RateLimitError:
        continue
