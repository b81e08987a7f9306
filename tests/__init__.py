"""Tests of agentscope."""
