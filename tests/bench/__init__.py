"""Measures agentscope against its budgets, and other tools on the same work. `python -m tests.bench [ROW...] [--quick]`."""
