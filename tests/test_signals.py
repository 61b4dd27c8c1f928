"""Signals that ask a process to end are heard like Ctrl-C;
a terminal that is closed stops no work.
"""

import contextlib
import os
import pty
import signal
import sys

import pytest

from bayes_dasl._runs import ProgressBar, signals
from bayes_dasl._runs.console import LastingConsole
from bayes_dasl._runs.signals import heard_like_ctrl_c

ASKING = [signal.SIGTERM, signal.SIGHUP]


def send(number):
    """To this process; Python hears it before the next line."""
    os.kill(os.getpid(), number)


@pytest.fixture(autouse=True)
def as_in_a_fresh_process():
    before = {number: signal.signal(number, signal.SIG_DFL) for number in ASKING}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", ASKING)
def test_a_request_to_end_interrupts_and_is_told(number):
    with heard_like_ctrl_c() as came, pytest.raises(KeyboardInterrupt):
        send(number)
    assert came == [number]
    assert [signal.getsignal(n) for n in ASKING] == [signal.SIG_DFL, signal.SIG_DFL]


def test_a_terminal_that_is_closed_tells_it_twice_and_interrupts_once(monkeypatch):
    with heard_like_ctrl_c() as came:
        with pytest.raises(KeyboardInterrupt):
            send(signal.SIGHUP)
        send(signal.SIGHUP)
        monkeypatch.setattr(signals, "_ONE_CLOSING", 0.0)
        with pytest.raises(KeyboardInterrupt):
            send(signal.SIGHUP)
    assert came == [signal.SIGHUP] * 3


def test_what_is_ignored_or_handled_by_others_stays_so():
    heard = []
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))
    with heard_like_ctrl_c() as came:
        send(signal.SIGHUP)
        send(signal.SIGTERM)
    assert (came, heard) == ([], [signal.SIGTERM])
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


def test_a_terminal_that_is_closed_stops_no_work(monkeypatch):
    screen, terminal = pty.openpty()
    dead = os.fdopen(terminal, "w")
    monkeypatch.setattr(sys, "stderr", dead)
    try:
        with ProgressBar(True) as bar:
            bar.start("warm-up", 10)
            os.close(screen)
            with pytest.raises(OSError, match="Input/output error"):
                print("nobody reads this", file=dead, flush=True)
            bar.advance(10)
            bar.start("sampling", 10)
            bar.advance(10)
        console = LastingConsole(stderr=True)
        console.print("nor this")
        assert console.quiet
    finally:
        with contextlib.suppress(OSError):
            dead.close()
