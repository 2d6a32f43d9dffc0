"""How many exports go on at the same time."""

from ingest.contract.errors import StoreUnavailable


class Exports:
    """How many exports are under way.

    Args:
        most: at the same time.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self.open = 0

    def enter(self) -> None:
        """Begin one.

        Raises:
            StoreUnavailable: there are too many.
        """
        if self.open >= self._most:
            raise StoreUnavailable(f"{self._most} exports are under way; try again when one has ended")
        self.open += 1

    def leave(self) -> None:
        """End one."""
        self.open -= 1
