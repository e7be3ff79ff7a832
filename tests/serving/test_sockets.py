"""Bound sockets: which addresses they take, and what is said when one cannot be had."""
import errno
import socket

import pytest

from serving import support
from steadyhook.serving import sockets

SETTING = "STEADYHOOK_WEBHOOK_PORT"


def test_a_bound_socket_accepts_nothing_until_it_listens() -> None:
    with sockets.bind(support.HOST, 0, setting=SETTING) as bound:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(bound.getsockname())
        sockets.listen(bound, address=support.HOST, setting=SETTING, backlog=1)
        socket.create_connection(bound.getsockname()).close()


def test_all_interfaces_means_ipv4_and_ipv6() -> None:
    with sockets.bind(None, 0, setting=SETTING) as bound:
        sockets.listen(bound, address=None, setting=SETTING, backlog=2)
        port = bound.getsockname()[1]
        socket.create_connection(("127.0.0.1", port)).close()
        if bound.family == socket.AF_INET6:
            socket.create_connection(("::1", port)).close()


def test_of_two_sockets_bound_to_one_port_the_second_to_listen_gets_the_error() -> None:
    with sockets.bind(support.HOST, 0, setting=SETTING) as first:
        port = first.getsockname()[1]
        with sockets.bind(support.HOST, port, setting=SETTING) as second:
            sockets.listen(first, address=support.HOST, setting=SETTING, backlog=1)
            with pytest.raises(sockets.ListenError, match=f"port {port}: Address already in use; set {SETTING}"):
                sockets.listen(second, address=support.HOST, setting=SETTING, backlog=1)


def test_an_address_of_another_machine_is_named_with_its_setting() -> None:
    with pytest.raises(sockets.ListenError, match=r"192\.0\.2\.1.*set STEADYHOOK_LISTEN_ADDRESS") as caught:
        sockets.bind("192.0.2.1", 0, setting=SETTING)
    assert caught.value.errno == errno.EADDRNOTAVAIL


def test_an_address_that_is_none_is_an_error_with_the_setting_too() -> None:
    with pytest.raises(sockets.ListenError, match="check STEADYHOOK_LISTEN_ADDRESS and"):
        sockets.bind("no address", 0, setting=SETTING)
