"""A door to the disk that lets one frame of a camera through at a time, and of those that wait the newest alone."""

import asyncio
from collections.abc import Hashable


class LatestOnly:
    """Where the disk is slower than a camera, frames that are out of date need not be written to it.

    So a camera's frames never queue up before the disk, and the one that is looked at next is a fresh one however
    slow an SD card is. Not a lock, which would let all of them through, one after another.
    """

    def __init__(self) -> None:
        # By who is inside, the newest of those that wait.
        self._inside: dict[Hashable, asyncio.Future[bool] | None] = {}

    def __repr__(self) -> str:
        return f"<LatestOnly {len(self._inside)} inside>"

    async def enter(self, camera: Hashable) -> bool:
        """Wait for the door; False if a newer one came meanwhile. Whoever was let in has to `leave`."""
        if camera not in self._inside:
            self._inside[camera] = None
            return True
        older = self._inside[camera]
        if older is not None and not older.done():
            older.set_result(False)
        mine = self._inside[camera] = asyncio.get_running_loop().create_future()
        let_in: bool = await mine
        return let_in

    def leave(self, camera: Hashable) -> None:
        """Let the next one in."""
        waiting = self._inside.pop(camera)
        if waiting is not None and not waiting.done():
            self._inside[camera] = None
            waiting.set_result(True)
