"""The change queue: reloads and upgrades run one after another."""

from __future__ import annotations

import pytest

from tetrad.master.change_queue import ChangeQueue


class Recorder:
    """A queue whose changes and messages to the service manager are recorded in order."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.queue = ChangeQueue(
            lambda: self.events.append("reloading"), lambda: self.events.append("ready")
        )

    def submit(self, name: str, *, is_immediate: bool = False) -> None:
        """Submit a change that is recorded when it starts; an immediate one finishes at once."""

        def change() -> None:
            self.events.append(name)
            if is_immediate:
                self.queue.finish()

        self.queue.submit(change)


@pytest.fixture
def recorder() -> Recorder:
    """Return a queue without changes."""
    return Recorder()


def test_a_change_starts_at_once_if_no_other_runs(recorder: Recorder) -> None:
    """The service manager is notified first."""
    recorder.submit("reload")
    assert recorder.events == ["reloading", "reload"]


def test_a_change_waits_for_the_one_that_runs(recorder: Recorder) -> None:
    """The next one starts when the first has finished, in the order of submission."""
    for name in ("reload", "upgrade", "another"):
        recorder.submit(name)
    recorder.queue.finish()
    assert recorder.events == ["reloading", "reload", "ready", "reloading", "upgrade"]
    recorder.queue.finish()
    recorder.queue.finish()
    assert recorder.events[5:] == ["ready", "reloading", "another", "ready"]


def test_changes_that_finish_while_they_start_do_not_block(recorder: Recorder) -> None:
    """A change that fails before its helper runs lets the next one start."""
    recorder.submit("running")
    recorder.submit("failing", is_immediate=True)
    recorder.submit("waiting")
    recorder.queue.finish()
    expected = ["ready", "reloading", "failing", "ready", "reloading", "waiting"]
    assert recorder.events[2:] == expected


def test_a_closed_queue_starts_nothing(recorder: Recorder) -> None:
    """A daemon that stops neither starts a change nor reports readiness."""
    recorder.submit("running")
    recorder.submit("waiting")
    recorder.queue.close()
    recorder.queue.finish()
    recorder.submit("late")
    assert recorder.events == ["reloading", "running"]
    assert recorder.queue.is_closed
