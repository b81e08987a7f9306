"""How Claude Code and Qwen Code name the folder of a working directory: "-" for all but ASCII letters and digits."""


def slug_of(folder: str) -> str:
    """A path as it names a folder; JavaScript counts in UTF-16, where some letters are two."""
    return "".join(c if c.isascii() and c.isalnum() else "--" if ord(c) > 0xFFFF else "-" for c in folder)
