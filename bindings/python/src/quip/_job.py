"""A job: work that runs on another thread. The one who waits for it may take it back.

Python handles Ctrl-C and the cancelling of tasks on the thread that waits, not during a C call. So
that thread has the library's calls done by another one.
"""

from __future__ import annotations

import concurrent.futures
import threading
from typing import Any, Callable, TypeVar

T = TypeVar("T")


class Job(concurrent.futures.Future[T]):
    """`cancel` is True, and `work` never runs, if it has not begun."""

    def __init__(self, work: Callable[[], T]) -> None:
        super().__init__()
        self._work = work

    def run(self) -> None:
        """Do the work on this thread."""
        if not self.set_running_or_notify_cancel():
            return
        try:
            self.set_result(self._work())
        except BaseException as error:
            self.set_exception(error)
            del self  # the error refers to this frame, and the job to the error


def do_on_thread(work: Callable[[], T], end: Callable[[], Any]) -> T:
    """Do the work on another thread. If Ctrl-C interrupts the waiting, call `end` until the work has
    ended. At the end of the program, when Python starts no more threads, do it on this one."""
    job = Job(work)
    # A daemon: after a second Ctrl-C the program may end although the work has not.
    thread = threading.Thread(target=job.run, name="quip", daemon=True)
    try:
        try:
            thread.start()
        except RuntimeError:
            return work()
        concurrent.futures.wait([job])
    except BaseException:
        while not (job.cancel() or job.done()):
            end()
            concurrent.futures.wait([job], 0.005)
        raise
    try:
        return job.result()
    finally:
        del job  # as above
