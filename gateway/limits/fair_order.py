"""Order waiters fairly: tenants take turns, and within a tenant priority goes before arrival."""

import heapq
import itertools
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(slots=True)
class Waiter(Generic[T]):
    """One waiter in the queue."""

    tenant: str
    priority: int
    number: int
    what: T
    here: bool = True

    def __lt__(self, other: "Waiter[T]") -> bool:
        return (self.priority, self.number) < (other.priority, other.number)


class FairQueue(Generic[T]):
    def __init__(self) -> None:
        self._tenants: OrderedDict[str, list[Waiter[T]]] = OrderedDict()
        """The tenant whose turn it is first."""
        self._numbers = itertools.count()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Waiter[T]]:
        """Everyone, in the order of their turns."""
        lines = [[one for one in sorted(heap) if one.here] for heap in self._tenants.values()]
        for row in itertools.zip_longest(*lines):
            yield from (one for one in row if one is not None)

    def join(self, tenant: str, priority: int, what: T) -> Waiter[T]:
        """`priority` 1 goes before 5."""
        waiting = Waiter(tenant, priority, next(self._numbers), what)
        self._add(waiting)
        return waiting

    def leave(self, waiting: Waiter[T]) -> None:
        """Twice is once; one who was taken has left already."""
        if waiting.here:
            waiting.here = False
            self._count -= 1
            self._tidy(waiting.tenant)

    def take(self, most: int) -> list[Waiter[T]]:
        """The next ones, who leave."""
        taken: list[Waiter[T]] = []
        while self._tenants and len(taken) < most:
            tenant, heap = next(iter(self._tenants.items()))
            one = heapq.heappop(heap)
            one.here = False
            taken.append(one)
            self._count -= 1
            self._tenants.move_to_end(tenant)
            self._tidy(tenant)
        return taken

    def put_back(self, taken: list[Waiter[T]]) -> None:
        """The last ones that were taken, to the places that they had."""
        for one in taken:
            self._add(one)
        for tenant in reversed(dict.fromkeys(one.tenant for one in taken)):
            self._tenants.move_to_end(tenant, last=False)

    def _add(self, waiting: Waiter[T]) -> None:
        waiting.here = True
        heapq.heappush(self._tenants.setdefault(waiting.tenant, []), waiting)
        self._count += 1

    def _tidy(self, tenant: str) -> None:
        heap = self._tenants[tenant]
        while heap and not heap[0].here:
            heapq.heappop(heap)
        if not heap:
            del self._tenants[tenant]
