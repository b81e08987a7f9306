"""Causes of class `killed`: one file each."""
