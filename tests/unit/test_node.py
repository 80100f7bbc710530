"""Ports for nodes: given to one who asks, and to no other."""

import socket

import pytest

from components.cloud.config import HOST
from components.console.node import free_port


def test_a_port_is_given_once_and_a_server_may_have_it_as_often_as_it_comes_back() -> None:
    port = free_port()
    with socket.socket() as another, pytest.raises(OSError, match="in use"):
        another.bind((HOST, port))
    for _ in range(2):
        with socket.create_server((HOST, port)), socket.create_connection((HOST, port)):
            pass
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((HOST, port))
