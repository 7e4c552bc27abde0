from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.service.engine.gate import NO_TOKEN, Gate, Skip
from headrace.topics.outcome import OutboxProgress
from headrace.topics.run_record import Announce, OutcomeRecord, Release


def announce(previous: int, nonce: str = "n") -> Announce:
    return Announce(app="a", instance="i", member="m", nonce=nonce, previous_token=previous, partitions=1)


def outcome(token: int, seq: int) -> OutcomeRecord:
    return OutcomeRecord(token=token, seq=seq, body=OutboxProgress(sent=()))


def release(token: int, seq: int) -> Release:
    return Release(token=token, seq=seq, attempts=(), grace_ms=0)


def opened(*, at: int = 10, seq: int = -1, nonce: str = "n") -> Gate:
    return Gate(last=at, token=at, nonce=nonce, seq=seq)


@pytest.mark.parametrize(
    ("gate", "record", "skip"),
    [
        (opened(seq=4), outcome(10, 5), None),
        (opened(seq=4), outcome(10, 4), Skip.DUPLICATE),
        (opened(seq=4), outcome(10, 0), Skip.DUPLICATE),
        (opened(seq=4), outcome(10, 6), Skip.SEQUENCE_GAP),
        (opened(seq=4), outcome(9, 5), Skip.STALE_TOKEN),
        (opened(seq=4), outcome(11, 5), Skip.STALE_TOKEN),
        (opened(seq=4), release(10, 5), None),
        (opened(seq=4), release(10, 6), Skip.SEQUENCE_GAP),
        (opened(seq=4), release(10, 4), Skip.DUPLICATE),
        (opened(seq=4), release(9, 5), Skip.STALE_TOKEN),
        (Gate(last=10, token=NO_TOKEN, nonce="n", seq=4), outcome(10, 5), Skip.STALE_TOKEN),
        (Gate(last=10, token=NO_TOKEN, nonce="n", seq=4), outcome(NO_TOKEN, 5), Skip.STALE_TOKEN),
        (Gate(), outcome(NO_TOKEN, 0), Skip.STALE_TOKEN),
        (Gate(), release(NO_TOKEN, 0), Skip.STALE_TOKEN),
        (Gate(), outcome(0, 0), Skip.STALE_TOKEN),
    ],
)
def test_an_outcome_counts_under_the_open_token_with_the_next_seq(
    gate: Gate, record: OutcomeRecord | Release, skip: Skip | None
) -> None:
    seq = gate.seq
    assert gate.admit(record) is skip
    assert gate.seq == (seq if skip else record.seq)


@pytest.mark.parametrize(
    ("gate", "record", "skip"),
    [
        (Gate(), announce(-1), None),
        (Gate(), announce(0), Skip.STALE_TOKEN),
        (opened(), announce(10, "m"), None),
        (opened(), announce(9, "m"), Skip.STALE_TOKEN),
        (opened(), announce(-1, "n"), Skip.DUPLICATE),
        (opened(), announce(-1, "m"), Skip.STALE_TOKEN),
        (Gate(last=10, token=NO_TOKEN, nonce="n", seq=3), announce(10, "m"), None),
        (Gate(last=10, token=NO_TOKEN, nonce="n", seq=3), announce(-1, "m"), Skip.STALE_TOKEN),
    ],
)
def test_an_announce_counts_only_after_the_newest_one(gate: Gate, record: Announce, skip: Skip | None) -> None:
    before = (gate.last, gate.token, gate.seq)
    assert gate.announce(20, record) is skip
    assert (gate.last, gate.token, gate.seq) == (before if skip else (20, 20, -1))
    assert gate.holder == ("" if skip else record.member)


def test_a_release_closes_its_token() -> None:
    gate = opened()
    assert gate.admit(release(10, 0)) is None
    assert gate.admit(outcome(10, 1)) is Skip.STALE_TOKEN
    assert gate.announce(20, announce(10, "m")) is None
    assert gate.admit(outcome(20, 0)) is None


@dataclass
class Sender:
    """An owner that believes what it read last, however long ago."""

    name: int
    known: int = NO_TOKEN
    token: int = NO_TOKEN
    seq: int = 0
    late: list[Announce | OutcomeRecord | Release] = field(default_factory=list)


acts = st.tuples(
    st.integers(0, 2),
    st.sampled_from(["announce", "outcome", "outcome", "outcome", "lose", "hold", "flush", "release"]),
)


@given(st.lists(acts, max_size=80))
def test_whatever_zombies_append_seqs_are_contiguous_under_one_token(script: list[tuple[int, str]]) -> None:
    """Three owners announce, append, lose batches, send held batches late and twice; what counts is one story."""
    gate = Gate()
    senders = [Sender(name) for name in range(3)]
    offset = 0
    told: list[tuple[int, int]] = []  # accepted (token, seq)
    releases: set[int] = set()

    def append(sender: Sender, record: Announce | OutcomeRecord | Release) -> None:
        nonlocal offset
        at, offset = offset, offset + 1
        if isinstance(record, Announce):
            if gate.announce(at, record) is None and record.nonce == f"{sender.name}":
                sender.token, sender.seq = at, 0
            return
        newest = gate.last
        if gate.admit(record) is None:
            assert record.token == newest
            assert record.token not in releases
            told.append((record.token, record.seq))
            if isinstance(record, Release):
                releases.add(record.token)

    for who, act in script:
        sender = senders[who]
        match act:
            case "announce":
                sender.known = gate.last
                append(sender, announce(sender.known, f"{sender.name}"))
            case "outcome" | "release" | "lose" | "hold":
                record = (release if act == "release" else outcome)(sender.token, sender.seq)
                sender.seq += 1
                if act == "hold":
                    sender.late.append(record)
                elif act != "lose":
                    append(sender, record)
            case _:
                for record in sender.late * 2:
                    append(sender, record)
                sender.late.clear()
    tokens = [token for token, _ in told]
    assert tokens == sorted(tokens)
    for token in set(tokens):
        seqs = [seq for accepted, seq in told if accepted == token]
        assert seqs == list(range(len(seqs)))
