"""Calls of several threads on their way to the workers: those that wait go together, in one message to each worker.

Two rounds of messages may be on their way, so that workers are busy while answers are brought back; whatever is asked
meanwhile waits for one of them and leaves with all else that waits.
"""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from kmeans_dask.local_blocks import Outcome

AT_ONCE = 2
Answers = Sequence[Outcome]  # of each worker, to one call


@dataclass(slots=True, eq=False)
class _Waiting:
    """One call, and its answers or the error of its round once there are any."""

    call: bytes
    is_sent: bool = False
    answers: Answers | None = None
    error: Exception | None = None

    @property
    def is_done(self) -> bool:
        return self.answers is not None or self.error is not None


class Rounds:
    """Sends calls by `ask`, which is given several and returns the workers' answers to each; threads share it."""

    def __init__(self, ask: Callable[[Sequence[bytes]], Sequence[Answers]]) -> None:
        self._ask = ask
        self._changed = threading.Condition()
        self._waiting: list[_Waiting] = []
        self._n_sent = 0

    def answers(self, call: bytes) -> Answers:
        """Return each worker's answer to a call, or raise the error of its round."""
        mine = _Waiting(call)
        together = self._together(mine)
        if together:
            self._send(mine, together)
        if mine.error is not None:
            raise mine.error
        return mine.answers or ()

    def _together(self, mine: _Waiting) -> list[_Waiting]:
        """Wait until a call is answered by others, or may be sent: then return it with all that wait."""
        with self._changed:
            self._waiting.append(mine)
            try:
                self._changed.wait_for(lambda: mine.is_done or (not mine.is_sent and self._n_sent < AT_ONCE))
            except BaseException:  # an interrupt: nobody is there to hear an answer
                self._waiting = [one for one in self._waiting if one is not mine]
                raise
            if mine.is_done:
                return []
            together, self._waiting = self._waiting, []
            for one in together:
                one.is_sent = True
            self._n_sent += 1
            return together

    def _send(self, mine: _Waiting, together: Sequence[_Waiting]) -> None:
        """Ask for all; an error of the round is everyone's, after an interrupt of this thread the others ask again."""
        try:
            found = self._ask([one.call for one in together])
            for one, answers in zip(together, found, strict=True):
                one.answers = answers
        except Exception as error:
            for one in together:
                one.error = error
        finally:
            with self._changed:
                self._n_sent -= 1
                left = [one for one in together if not one.is_done and one is not mine]
                for one in left:
                    one.is_sent = False
                self._waiting = [*left, *self._waiting]
                self._changed.notify_all()
