"""The key that signs the head: ed25519 (RFC 8032), made at first use, readable by its owner only, its public half beside it.

The public half is read without the library: in SubjectPublicKeyInfo (RFC 8410, section 4) the 32 bytes of the key stand last.
So a process that only appends does not load it; signing is done beside the loop.
"""

import base64
import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from agentscope.errors import CannotWrite
from agentscope.ledger.places import FOLDER_FLAGS, read_small, replace

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

KEY = "ledger.key"
PUBLIC = "ledger.pub"
KEY_BYTES = 32
SPKI_BYTES = 44


def public_key(state: Path) -> bytes | None:
    """The 32 bytes of the public key; None where there is none, or it is none."""
    with suppress(OSError, ValueError):
        text = read_small(PUBLIC, state)
        if text is not None:
            inner = b"".join(line for line in text.splitlines() if line and not line.startswith(b"-----"))
            decoded = base64.b64decode(inner, validate=True)
            return decoded[-KEY_BYTES:] if len(decoded) == SPKI_BYTES else None
    return None


def make_keys(state: Path) -> bytes:
    """The public key; both halves are made where there is neither, the public one where it is lost. Held under the append lock.

    Raises:
        OSError: they cannot be written. CannotWrite: the key that is there is none, or only its public half is.
    """
    found = public_key(state)
    if found is not None:
        return found
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

    folder = os.open(state, FOLDER_FLAGS & ~os.O_NOFOLLOW)
    try:
        if read_small(KEY, state) is None:
            made = Ed25519PrivateKey.generate()
            replace(KEY, made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), folder)
        private = load(state)
        replace(PUBLIC, private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo), folder)
        os.fsync(folder)
    finally:
        os.close(folder)
    return private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)


def load(state: Path) -> "Ed25519PrivateKey":
    """The private key.

    Raises:
        CannotWrite: it is missing, or is no key.
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    where = state / KEY
    try:
        text = read_small(KEY, state)
        if text is None:
            raise CannotWrite(f"cannot sign the ledger: {where} is missing", "its public half is there", f"restore {where}")
        private = load_pem_private_key(text, password=None)
    except (OSError, ValueError, TypeError) as error:
        raise CannotWrite(f"cannot sign the ledger: {where} is no key", str(error), f"restore {where}") from None
    if not isinstance(private, Ed25519PrivateKey):
        raise CannotWrite(f"cannot sign the ledger: {where} is another kind of key", "it must be ed25519", f"restore {where}")
    return private


def is_signed(public: bytes, body: bytes, signature: bytes) -> bool:
    """Whether the owner of this key signed it."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, body)
    except (InvalidSignature, ValueError):
        return False
    return True
