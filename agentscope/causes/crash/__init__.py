"""Causes of class `crash`: one file each."""
