"""The batches of a stream: problems become examples as they arrive, the same ones on all processes.

Process 0 reads the stream, and sends each batch to the others with the position after it. So it does not matter which
files another machine sees, and all processes take their steps together.
"""

from __future__ import annotations

import collections
import dataclasses
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from prerl_jax.data.collecting import SHOWN, worked_solutions
from prerl_jax.data.columns import ColumnsMissing, Dropped
from prerl_jax.data.maps import of_stream, remedy
from prerl_jax.data.problems import Problem
from prerl_jax.data.prompts import Example
from prerl_jax.data.streams import ProblemStream
from prerl_jax.runtime.distributed import from_process, share_errors

ROUND = 5.0
"""Seconds that process 0 waits for problems before it answers the other processes."""
POLL = 0.2
"""Seconds between two looks at a stream that is dry."""
REMIND = 60.0
"""Seconds between two messages that a run waits."""

Encode = Callable[[Problem], tuple[Example | Dropped, str]]
"""Problem -> (its example, or why it cannot be used; a remark for the log, "" for none). Raises ValueError."""


class StreamEnded(Exception):
    """The stream has run dry: it has no further batch."""


@dataclasses.dataclass(frozen=True)
class Answer:
    """What process 0 says after a round.

    Attributes:
        examples: the next batch; () while it is not complete.
        state: the position after it.
        ended: why the stream has no further batch; "" while it may have one.
        messages: lines for the log.
    """

    examples: tuple[Example, ...]
    state: dict[str, Any]
    ended: str
    messages: tuple[str, ...]


class ExampleStream:
    """An iterator over batches of the numbers of examples, which are counted as they arrive.

    Args:
        source: the stream.
        encode: makes examples of problems.
        batch: examples of a global batch.
        keep: the newest examples that `stream[number]` still finds.
    """

    def __init__(self, source: ProblemStream, encode: Encode, batch: int, keep: int) -> None:
        self._source, self._encode, self._batch, self._keep = source, encode, batch, keep
        self._kept: dict[int, Example] = {}
        self._say: Callable[[str], None] | None = None
        self._unsaid: list[str] = []
        self._state: dict[str, Any] = {"position": {}, "count": 0, "passes": 0, "counts": {}, "source": source.identity}
        self._next: Answer | None = None
        self._collecting: Collecting | None = None  # on process 0

    def __iter__(self) -> ExampleStream:
        return self

    def __getitem__(self, number: int) -> Example:
        """The example with a number that a batch has named."""
        return self._kept[int(number)]

    def __next__(self) -> np.ndarray:
        """i32[batch]: the numbers of the examples in the next batch, the same on every process. Waits for problems.

        Raises:
            StreamEnded: the stream is dry.
            ValueError: a row is bad, or a file has changed where it may not.
        """
        answer, start = self._peek(), self._state["count"]
        self._state, self._next = answer.state, None
        self._kept |= dict(enumerate(answer.examples, start))
        for number in list(self._kept)[: max(0, len(self._kept) - self._keep)]:
            del self._kept[number]
        return start + np.arange(self._batch, dtype=np.int32)

    def first(self) -> tuple[Example, ...]:
        """The examples of the next batch, without taking it. Every process must call it. Raises as `__next__`."""
        return self._peek().examples

    def get_state(self) -> dict[str, Any]:
        """The position after the last batch that was taken, as JSON; the same on every process."""
        return self._state

    def accepts(self, state: dict[str, Any]) -> bool:
        """Whether a state is of this stream."""
        return state.get("source") == self._source.identity

    def set_state(self, state: dict[str, Any]) -> None:
        """Goes to a saved position.

        Raises:
            ValueError: the state is of another stream, or the stream has other problems before that position.
        """
        if not self.accepts(state):
            raise ValueError(f"the data position {state} does not belong to the stream {self._source.identity!r}")
        self._state, self._next, self._collecting = state, None, None
        with share_errors("going to the checkpoint's position in the stream"):
            if jax.process_index() == 0:
                self._collecting = Collecting(self._source, self._encode, self._batch, state)

    def listen(self, say: Callable[[str], None]) -> None:
        """Gives all messages to `say`, those that were kept until now, too."""
        self._say = say
        self._tell(())

    def _tell(self, messages: tuple[str, ...]) -> None:
        self._unsaid += messages
        if self._say is not None:
            for message in self._unsaid:
                self._say(f"train data: {message}")
            self._unsaid = []

    def _peek(self) -> Answer:
        """The next batch; it stays the next one."""
        while self._next is None:
            answer = self._round()
            self._tell(answer.messages)
            if answer.ended:
                raise StreamEnded(answer.ended)
            self._next = answer if answer.examples else None
        return self._next

    def _round(self) -> Answer:
        """What process 0 has after at most ROUND seconds, the same on all processes."""
        answer = None
        with share_errors("reading the stream of problems"):
            if jax.process_index() == 0:
                if self._collecting is None:
                    self._collecting = Collecting(self._source, self._encode, self._batch, self._state)
                answer = self._collecting.collect(time.monotonic() + ROUND)
        shared: Answer = from_process(answer, 0)
        return shared


class Collecting:
    """Collects batches of examples from a stream, on process 0.

    Args:
        source: the stream.
        encode: makes examples of problems.
        batch: examples of a batch.
        state: the position to begin at.
    """

    def __init__(self, source: ProblemStream, encode: Encode, batch: int, state: dict[str, Any]) -> None:
        self._source, self._encode, self._batch, self._state = source, encode, batch, state
        self._reader = source.open()
        self._reader.move(state["position"])
        self._examples: list[Example] = []
        self._messages: list[str] = []
        self._counts = collections.Counter(state["counts"])
        self._passes, self._of_this_pass = state["passes"], state["count"]
        self._dry_since: float | None = None
        self._reminded = 0.0

    def collect(self, until: float) -> Answer:
        """The next batch, or what there is to say at the time `until` (`time.monotonic`).

        Raises ValueError where a row is bad, or a file has changed where it may not.
        """
        ended = ""
        while len(self._examples) < self._batch and not ended:
            arrived = self._reader.read()
            if arrived is not None:
                self._dry_since = None
                self._take(*arrived)
            elif self._is_over():
                ended = self._begin_again()
            elif time.monotonic() > until:
                break
            else:
                time.sleep(POLL)
        examples: tuple[Example, ...] = ()
        if len(self._examples) == self._batch:
            examples, self._examples = tuple(self._examples), []
            if not self._state["count"]:
                self._messages += worked_solutions([example.problem for example in examples])
            self._state = {
                **self._state,
                "position": self._reader.position(),
                "count": self._state["count"] + self._batch,
                "passes": self._passes,
                "counts": dict(self._counts),
            }
        messages, self._messages = tuple(self._messages), []
        return Answer(examples, self._state, ended, messages)

    def _take(self, where: str, read: Callable[[], Problem | Dropped]) -> None:
        """Makes an example of what has arrived, or counts why not."""
        try:
            problem = read()
        except (ValueError, RecursionError) as error:
            if not self._source.skip_bad_rows:
                todo = f"{error}. Correct the row, or leave it out with skip_bad_rows=True"
                if isinstance(error, ColumnsMissing) and not self._state["count"] and not self._examples:
                    todo = f"{todo}. {remedy(error.columns, error.row, reader=of_stream)}"
                raise ValueError(f"{self._source.identity}, {where}: {todo}") from error
            self._count("dropped: bad row", where, f"dropped: {error}")
            return
        try:
            example, remark = (problem, "") if isinstance(problem, Dropped) else self._encode(problem)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error
        if remark:
            self._count(f"trained on: {remark}", where)
        if isinstance(example, Dropped):
            self._count(f"dropped: {example.reason}", where)
            return
        self._of_this_pass += 1
        self._examples.append(example)

    def _count(self, kind: str, where: str, reason: str = "") -> None:
        """Counts a row of a kind. The first ones are said, and then every power of ten."""
        self._counts[kind] += 1
        count = self._counts[kind]
        if count <= SHOWN:
            self._messages.append(f"{where}: {reason or kind}")
        elif str(count).strip("0") == "1":
            self._messages.append(f"{count:,} rows so far: {kind}")

    def _is_over(self) -> bool:
        """Whether the stream has been dry for as long as it may be; says that the run waits."""
        now = time.monotonic()
        if self._dry_since is None:
            self._dry_since = self._reminded = now
            if self._source.wait:
                self._messages.append(f"{self._has()}; waiting {self._source.wait:g} s for more")
        elif now - self._reminded > REMIND:
            self._reminded = now
            self._messages.append(f"still waiting, for {now - self._dry_since:.0f} s")
        return now - self._dry_since >= self._source.wait

    def _begin_again(self) -> str:
        """Begins the stream again, or says why it ends."""
        if self._source.then == "end":
            return f"{self._has()}; waited {self._source.wait:g} s"
        if not self._of_this_pass:
            return f"{self._has()}; there is none to repeat"
        self._passes, self._of_this_pass, self._dry_since = self._passes + 1, 0, None
        self._reader.move({})
        self._messages.append(
            f"{self._source.identity} has no further problem and begins again: pass {self._passes + 1}"
        )
        return ""

    def _has(self) -> str:
        """What the stream has given so far."""
        counts = "".join(f", {count:,} rows {kind}" for kind, count in self._counts.items())
        return (
            f"{self._source.identity} has no further problem now: {self._state['count']:,} were taken, and "
            f"{len(self._examples)} wait for a batch of {self._batch}{counts}"
        )
