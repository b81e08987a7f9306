"""agentscope: why a long-running process died or went silent, with proof from the kernel."""

__version__ = "0.1.0"
