"""Causes of class `exit`: one file each."""
