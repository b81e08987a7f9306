"""The scenes: a function that is marked with `scene` is one. Beside each way to break stands one that looks alike and is innocent."""
