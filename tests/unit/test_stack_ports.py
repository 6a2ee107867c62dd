"""Ports on the loopback."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from streams.stack.ports import HOST, PortBook, is_free


@pytest.fixture
def book() -> Iterator[PortBook]:
    book = PortBook()
    yield book
    book.release()


def test_a_free_preferred_port_is_taken(book: PortBook) -> None:
    free = book.take()
    book.release()
    assert book.take(preferred=free) == free


def test_a_port_that_somebody_listens_on_is_left_alone(book: PortBook) -> None:
    with socket.socket() as listener:
        listener.bind((HOST, 0))
        listener.listen()
        busy = listener.getsockname()[1]
        assert not is_free(busy)
        assert book.take(preferred=busy) != busy


def test_two_books_never_give_out_the_same_port_though_nobody_listens_yet(book: PortBook) -> None:
    other = PortBook()
    try:
        first = book.take()
        assert is_free(first)
        assert other.take(preferred=first) != first
    finally:
        other.release()


def test_one_book_gives_out_a_port_once(book: PortBook) -> None:
    ports = [book.take() for _ in range(50)]
    assert len(set(ports)) == 50


def test_free_ports_are_no_ephemeral_ones(book: PortBook) -> None:
    with open("/proc/sys/net/ipv4/ip_local_port_range") as file:
        low, high = map(int, file.read().split())
    assert not [p for p in (book.take() for _ in range(50)) if low <= p <= high]
