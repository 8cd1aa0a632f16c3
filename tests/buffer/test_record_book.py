from __future__ import annotations

import pytest

from buffer import record_book
from buffer.record_book import MAX_RECORDS, RecordBook
from protocol.codec import decode, encode
from protocol.errors import RefusedError
from protocol.messages import Records
from tests.telemetry.fakes import make_record, make_run


def steps(records: list[dict[str, object]]) -> list[object]:
    return [record["step"] for record in records]


def test_who_asks_again_gets_what_came_since() -> None:
    book = RecordBook()
    book.add([make_record(1), make_record(2)])
    assert steps(book.after(0)) == [1, 2]
    assert book.after(book.count) == []
    book.add([make_record(3)])
    assert steps(book.after(2)) == [3]


def test_who_knows_of_more_than_there_ever_was_gets_all() -> None:
    book = RecordBook()
    book.add([make_record(1)])
    assert steps(book.after(70)) == [1]


def test_the_oldest_are_forgotten_beyond_the_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    book = RecordBook()
    book.add(make_record(step) for step in range(1, MAX_RECORDS + 11))
    assert len(book.after(0)) == MAX_RECORDS
    assert book.after(0)[0]["step"] == 11
    assert steps(book.after(MAX_RECORDS + 8)) == [MAX_RECORDS + 9, MAX_RECORDS + 10]
    monkeypatch.setattr(record_book, "MAX_BYTES", 3000)
    book.add([make_record(MAX_RECORDS + 11)])
    # A record of the fake has some 500 bytes.
    assert 3 <= len(book.after(0)) <= 6
    assert book.after(0)[-1]["step"] == MAX_RECORDS + 11


def test_what_is_no_record_is_refused() -> None:
    book = RecordBook()
    for bad in ({}, make_record(1) | {"step": "one"}, make_record(1) | {"surprise": 1}):
        with pytest.raises(RefusedError, match="bad_record"):
            book.add([bad])
    with pytest.raises(RefusedError, match="at most"):
        book.add([make_record(1, diagnostics={"long": "x" * 2**19})])
    assert book.count == 0


def test_a_full_book_fits_a_message() -> None:
    book = RecordBook()
    book.add(make_run(MAX_RECORDS))
    assert decode(encode(Records(records=book.after(0)))) == Records(records=book.after(0))
