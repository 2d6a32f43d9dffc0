"""Whoever speaks is never held up by whoever does not listen."""

import os
import threading

from deploy.embedded.speaker import Speaker


def test_a_pipe_that_nobody_reads_holds_nobody_up() -> None:
    """All is said at once, however much; what is read later is whole lines, the first ones, and how many were left out."""
    reading, writing = os.pipe()
    stream = os.fdopen(writing, "w")
    speaker = Speaker(stream)
    saying = threading.Thread(target=lambda: [speaker.say(f"line {number} {'x' * 200}") for number in range(5000)])
    saying.start()
    saying.join(30)
    assert not saying.is_alive()
    text = b""
    while b"left out" not in text:
        text += os.read(reading, 65_536)
        speaker.say("and on")
    speaker.close()
    lines = text.decode().splitlines()
    assert lines[:3] == [f"line {number} {'x' * 200}" for number in range(3)]
    said = [line for line in lines if line.startswith("line ")]
    assert 100 < len(said) < 5000


def test_what_is_read_is_said_to_its_end() -> None:
    """Lines come in their order, and closing waits for the last one."""
    reading, writing = os.pipe()
    with os.fdopen(writing, "w") as stream:
        speaker = Speaker(stream)
        for number in range(100):
            speaker.say(str(number))
        speaker.close()
    assert os.read(reading, 65_536).decode().split() == [str(number) for number in range(100)]


def test_a_stream_that_is_closed_ends_nothing() -> None:
    """A terminal that went away is no error."""
    reading, writing = os.pipe()
    os.close(reading)
    speaker = Speaker(os.fdopen(writing, "w"))
    for _ in range(100):
        speaker.say("gone")
    speaker.close()
