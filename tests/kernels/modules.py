"""Loads modules of the guest's kernel: there is no modprobe where nobody installed one, and no modules.dep."""

import ctypes
import functools
import lzma
import os
import re
from pathlib import Path

INIT_MODULE = 175  # x86-64, the only guest there is
LIBC = ctypes.CDLL(None, use_errno=True)


@functools.cache
def files() -> dict[str, Path]:
    """Where the modules of this kernel lie, by name with underscores. In the guest the folders are symbolic links, and slow to walk."""
    found = {}
    for folder, _, names in os.walk(f"/lib/modules/{os.uname().release}/kernel", followlinks=True):
        found.update({each.partition(".")[0].replace("-", "_"): Path(folder, each) for each in names})
    return found


def load_module(name: str) -> None:
    """Load a module with all that it depends on; one that is there, or built in, is left as it is.

    Raises:
        OSError: the kernel refuses it.
    """
    name = name.replace("-", "_")
    if Path("/sys/module", name).exists() or name not in files():
        return
    found = files()[name]
    image = lzma.decompress(found.read_bytes()) if found.suffix == ".xz" else found.read_bytes()
    depends = re.search(rb"\0depends=([^\0]*)\0", image)
    for other in depends[1].decode().split(",") if depends is not None and depends[1] else ():
        load_module(other)
    if LIBC.syscall(INIT_MODULE, image, ctypes.c_ulong(len(image)), b"") != 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error), name)
