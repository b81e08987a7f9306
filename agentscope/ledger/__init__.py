"""The record on disk: append-only NDJSON, one line of the stream a record, chained by SHA-256, its head signed and anchored.

    Ledger(state).append(line)      write a line; `append_durably` before an act
    Ledger(state).read()            every line back, oldest first
    verifying.verify(state)         is anything missing or changed?

**What the chain can prove.** Every record carries its number and the hash of the one before, so that nothing can be changed, put
in, taken out or moved between two records without the next hash being wrong: that much anybody can check with sed and sha256sum.
A chain alone does not notice that its end was cut off, or that all of it was replaced. So its head (how many records, the last
hash) is signed with a key that only the owner can read, and copied to a second place from time to time: the journal, a file, a
command. Whoever cuts, rewrites, deletes or puts back an older ledger then contradicts the copy.

**What it cannot prove.** Root on this machine can read the key and sign another chain: the signature alone stops users, programs
and accidents, not root. Against root only the anchors stand, as far as they are out of root's reach (a journal that is sent on, a
command that writes elsewhere): the ledger is tamper-evident up to the last anchor, and not tamper-proof. Records since the last
anchor can be taken away unnoticed by who holds the key; `verify` names that range. And no chain proves that something that
happened was recorded: what could not be (a full disk) is a record itself once there is room.

**Who writes.** Any number of processes, one append at a time, under a lock that is held for one append: one chain (`appending.py`
says why). **What a crash does.** A torn last line is set aside in a file of its own, named in the chain, and the chain goes on
(`tail.py`). **What survives what**: `upkeep.py`. **What goes in time**: `retention.py`.

Secrets are redacted where a line is made (`record.py`), before it comes here.
"""

from agentscope.ledger.book import Ledger
from agentscope.ledger.settings import Settings

__all__ = ["Ledger", "Settings"]
