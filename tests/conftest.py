"""What tests of all rooms share."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from typing import TypeVar

import pytest

_Thing = TypeVar("_Thing")


@pytest.fixture
def handed_over() -> Callable[[_Thing], _Thing]:
    """Return what a worker gets of what it is sent: something small, as handles of files are."""

    def hand_over(thing: _Thing) -> _Thing:
        receiver, sender = multiprocessing.Pipe(duplex=False)
        with receiver, sender:
            sender.send(thing)
            return receiver.recv()

    return hand_over
