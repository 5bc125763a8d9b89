"""The spool: requests in, finals and their outbox out, in one SQLite file that survives kill -9 and power loss.

A request is acknowledged to the broker once it is here, and leaves only in the transaction that stores its
final; the final leaves the outbox at the broker's PUBACK. So at every instant each acknowledged request is
unfinished, or has its one final.

`records` are what goes in and out, `schema`, `database` and `notes` the SQL, `store` keeps it going on a sick disk with
`ballast` and `mending`, `writer` is the asyncio face and the thread behind it.
The prose is in ``docs/spool.md``.
"""

from agent.spool.records import Receipt, Room, SpoolError, SpoolFull, SpoolSick, StoredFinal, Total, Unfinished, Unsent
from agent.spool.writer import Spool

__all__ = [
    "Receipt",
    "Room",
    "Spool",
    "SpoolError",
    "SpoolFull",
    "SpoolSick",
    "StoredFinal",
    "Total",
    "Unfinished",
    "Unsent",
]
