"""Log lines are shown once and in order, however often the connection is lost."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from launcher.targets.cluster.log_lines import GAP, NewLines

BEGIN = datetime(2026, 11, 22, 8, 0, 0, tzinfo=UTC)


def stamped(after_s: float, text: str) -> bytes:
    moment = BEGIN + timedelta(seconds=after_s)
    return f"{moment.strftime('%Y-%m-%dT%H:%M:%S')}.{moment.microsecond:06d}123Z {text}\n".encode()


def since(log: list[bytes], when: str | None) -> list[bytes]:
    """What a node sends: it compares each line's time with whole seconds."""
    return [line for line in log if when is None or line[:19] >= when[:19].encode()]


def read(lines: NewLines, sent: list[bytes], *, to_end: bool = False) -> list[bytes]:
    lines.read_again()
    shown = [text for line in sent for text in lines.take(line)]
    return shown + (lines.end() if to_end else [])


@given(
    steps=st.lists(st.sampled_from([0.0, 0.0, 0.3, 1.0, 7.0]), min_size=1, max_size=40),
    texts=st.lists(st.sampled_from(["same", "other"]), min_size=40, max_size=40),
    cuts=st.lists(st.tuples(st.integers(0, 40), st.integers(0, 12)), max_size=8),
)
def test_no_line_is_lost_or_repeated_after_lost_connections(
    steps: list[float], texts: list[str], cuts: list[tuple[int, int]]
) -> None:
    clock, log = 0.0, []
    for step, text in zip(steps, texts, strict=False):
        clock += step
        log.append(stamped(clock, text))
    lines, shown = NewLines(), []
    for written, sent in sorted(cuts):
        # By now so many lines are written, of which the connection brings some, then breaks.
        shown += read(lines, since(log[:written], lines.since())[:sent])
    shown += read(lines, since(log, lines.since()), to_end=True)
    assert shown == [line.partition(b" ")[2] for line in log]


def test_stdout_and_stderr_timestamps_may_cross() -> None:
    log = [stamped(1.0, "out"), stamped(2.01, "out"), stamped(1.99, "err"), stamped(2.0, "err")]
    lines = NewLines()
    shown = read(lines, log[:2]) + read(lines, since(log, lines.since()), to_end=True)
    assert shown == [b"out\n", b"out\n", b"err\n", b"err\n"]


def test_rotated_lines_leave_a_gap_marker() -> None:
    log = [stamped(1.0, "a"), stamped(60.0, "z")]
    lines = NewLines()
    assert read(lines, log[:1]) == [b"a\n"]
    assert read(lines, log[1:]) == [GAP, b"z\n"]
    assert read(lines, log[1:], to_end=True) == []


def test_rotation_within_a_second_leaves_a_gap_marker() -> None:
    lines = NewLines()
    read(lines, [stamped(1.0, "a")])
    assert read(lines, [stamped(1.1, "c")], to_end=True) == [GAP, b"c\n"]


def test_end_of_a_cut_line_is_not_repeated() -> None:
    lines = NewLines()
    read(lines, [stamped(1.0, "a long line in two pieces"), stamped(3.5, "b")])
    again = [stamped(1.6, "in two pieces"), stamped(3.5, "b"), stamped(3.6, "c")]
    assert read(lines, again) == [b"c\n"]


def test_node_messages_without_timestamp_are_dropped() -> None:
    lines = NewLines()
    assert read(lines, [b"failed to watch file: no such file\n", b"\n", stamped(1.0, "a")]) == [b"a\n"]


def test_timestamps_of_any_time_zone_parse() -> None:
    lines = NewLines()
    assert read(lines, [b"2026-11-22T10:00:07.123456789+02:00 a\n"]) == [b"a\n"]
    assert lines.since() == "2026-11-22T08:00:05Z"
