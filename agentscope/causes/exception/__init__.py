"""Causes of class `exception`: one file each."""
