"""Causes of class `oom`: one file each."""
