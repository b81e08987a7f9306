"""Loads modules of the guest's kernel: there is no modprobe where nobody installed one, and no modules.dep."""

import ctypes
import lzma
import os
import re
from pathlib import Path

INIT_MODULE = 175  # x86-64, the only guest there is
LIBC = ctypes.CDLL(None, use_errno=True)


def file_of(name: str) -> Path | None:
    """Where a module of this kernel lies; None: it is built in, or there is none. In the guest the folders are symbolic links."""
    wanted = re.compile(re.sub("[-_]", "[-_]", name) + r"\.ko(\.xz)?")
    for folder, _, names in os.walk(f"/lib/modules/{os.uname().release}/kernel", followlinks=True):
        for each in filter(wanted.fullmatch, names):
            return Path(folder, each)
    return None


def load_module(name: str) -> None:
    """Load a module with all that it depends on; one that is there, or built in, is left as it is.

    Raises:
        OSError: the kernel refuses it.
    """
    found = None if Path("/sys/module", name.replace("-", "_")).exists() else file_of(name)
    if found is None:
        return
    image = lzma.decompress(found.read_bytes()) if found.suffix == ".xz" else found.read_bytes()
    depends = re.search(rb"\0depends=([^\0]*)\0", image)
    for other in depends[1].decode().split(",") if depends is not None and depends[1] else ():
        load_module(other)
    if LIBC.syscall(INIT_MODULE, image, ctypes.c_ulong(len(image)), b"") != 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error), name)
