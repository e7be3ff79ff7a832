"""The parts of the development cluster that need no cluster."""
import os
import pathlib
import ssl
import time

import pytest

from devcluster import addresses, binaries, certificates, podspec, waiting


def test_waiting_in_vain_says_for_what_and_what_was_seen_last() -> None:
    began = time.monotonic()
    with pytest.raises(waiting.WaitTimeout, match=r"0.2 s waiting for the moon; last seen: KeyError\('cheese'\)"):
        waiting.wait_for(lambda: dict[str, str]()["cheese"], 0.2, "the moon")
    assert time.monotonic() - began >= 0.2


def test_only_pod_addresses_are_mapped_to_loopback() -> None:
    assert addresses.to_loopback("10.244.3.4") == "127.244.3.4"
    with pytest.raises(ValueError, match="is not an address of a pod"):
        addresses.to_loopback("10.0.0.1")


def test_references_in_commands_are_expanded_as_in_kubernetes() -> None:
    assert podspec.expand("$(A)/$(NONE)/$$(A)/$A", {"A": "x"}) == "x/$(NONE)/$(A)/$A"


def programs(folder: pathlib.Path, *names: str) -> pathlib.Path:
    """A folder with executable files."""
    folder.mkdir(parents=True)
    for name in names:
        (folder / name).write_text("#!/bin/sh\n")
        (folder / name).chmod(0o755)
    return folder


def fake_go(folder: pathlib.Path, build: str) -> pathlib.Path:
    """A folder with a `go` of a suitable version whose `build` is this shell script; $DIR is the output folder."""
    folder.mkdir()
    go = folder / "go"
    go.write_text(
        f'#!/bin/sh\n[ "$1" = env ] && echo go1.26.0 && exit\n'
        '[ "$1" = list ] && printf "first\\nsecond\\nthird\\n" && exit\nfor word; do\n'
        f'  [ "$last" = -o ] && DIR=$word\n  last=$word\ndone\n{build}\n'
    )
    go.chmod(0o755)
    return folder


def test_programs_come_from_the_assets_folder_and_the_rest_from_the_cache(tmp_path: pathlib.Path) -> None:
    assets = programs(tmp_path / "assets", "etcd", "kube-apiserver", "kubectl")
    environ = {"KUBEBUILDER_ASSETS": str(assets), "XDG_CACHE_HOME": str(tmp_path / "cache"), "PATH": ""}
    cache = programs(binaries.cache_folder(environ), *binaries.PROGRAMS)
    found = binaries.find(pytest.fail, environ)
    assert {name: path.parent for name, path in found.items()} == {
        "etcd": assets,
        "kube-apiserver": assets,
        "kubectl": assets,
        "kube-controller-manager": cache,
        "kube-scheduler": cache,
    }


def test_missing_programs_are_built_once_with_visible_progress(tmp_path: pathlib.Path) -> None:
    build = "for p in server kube-apiserver kube-controller-manager kube-scheduler kubectl; do\n"
    build += "  echo > $DIR/$p; chmod +x $DIR/$p\ndone"
    path = os.pathsep.join((str(fake_go(tmp_path / "go", build)), os.defpath))
    environ = {"XDG_CACHE_HOME": str(tmp_path / "cache"), "PATH": path}
    said: list[str] = []
    found = binaries.find(said.append, environ)
    assert set(found) == set(binaries.PROGRAMS)
    assert "building the Kubernetes v1." in said[0]
    assert "done after" in said[-1]
    assert binaries.find(pytest.fail, environ) == found
    assert {each.suffix for each in binaries.cache_folder(environ).parent.iterdir()} <= {"", ".lock"}


def test_a_test_without_the_marker_cluster_builds_nothing() -> None:
    with pytest.raises(pytest.fail.Exception, match="marked `cluster`"):
        binaries.find(pytest.fail)


def test_a_build_tells_how_many_of_how_many_steps_are_done(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(binaries, "PROGRESS_SECONDS", 0.05)
    seen = tmp_path / "seen"
    build = f"echo first; echo second; while [ ! -e {seen} ]; do sleep 0.05; done\n"
    build += "for p in server kube-apiserver kube-controller-manager kube-scheduler kubectl; do\n"
    build += "  echo > $DIR/$p; chmod +x $DIR/$p\ndone"
    path = os.pathsep.join((str(fake_go(tmp_path / "go", build)), os.defpath))

    def say(line: str) -> None:
        if "2 of 3 steps done, now second" in line:
            seen.touch()

    binaries.find(say, {"XDG_CACHE_HOME": str(tmp_path / "cache"), "PATH": path})
    assert seen.exists()


def test_a_build_that_fails_leaves_nothing_and_says_why(tmp_path: pathlib.Path) -> None:
    path = os.pathsep.join((str(fake_go(tmp_path / "go", "echo no such module; exit 3")), os.defpath))
    environ = {"XDG_CACHE_HOME": str(tmp_path / "cache"), "PATH": path}
    with pytest.raises(binaries.BinariesError, match=r"(?s)exited with 3.*no such module"):
        binaries.find(lambda line: None, environ)
    cache = binaries.cache_folder(environ)
    assert [each.suffix for each in cache.parent.iterdir()] == [".lock"]


def test_two_clusters_at_once_do_not_share_addresses() -> None:
    pools = addresses.Pool(), addresses.Pool()
    try:
        first, second = ({pool.take() for _ in range(300)} for pool in pools)
    finally:
        for pool in pools:
            pool.close()
    assert len(first) == len(second) == 300
    assert not first & second


def shake_hands(server: ssl.SSLContext, client: ssl.SSLContext, *, name: str) -> None:
    """A handshake in memory. Raises :class:`ssl.SSLError`."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = [client.wrap_bio(to_client, to_server, server_hostname=name),
             server.wrap_bio(to_server, to_client, server_side=True)]
    while sides:
        side = sides.pop(0)
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            sides.append(side)


def strict(context: ssl.SSLContext, authority: certificates.Authority, pair: tuple[bytes, bytes],
           folder: pathlib.Path) -> ssl.SSLContext:
    """The context with a certificate, verifying as Python does from 3.13 on."""
    file = folder / "pair.pem"
    file.write_bytes(b"".join(pair))
    context.load_cert_chain(file)
    context.load_verify_locations(cadata=authority.pem.decode())
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    return context


def test_a_strict_verifier_takes_the_clusters_servers_and_clients(tmp_path: pathlib.Path) -> None:
    authority = certificates.Authority("ca")
    names = ("localhost", "127.0.0.1")
    server = strict(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), authority,
                    authority.issue("server", server_names=names), tmp_path)
    client = strict(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), authority,
                    authority.issue("admin", organization="system:masters"), tmp_path)
    for name in names:
        shake_hands(server, client, name=name)
    stranger = strict(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), certificates.Authority("other"),
                      authority.issue("admin"), tmp_path)
    with pytest.raises(ssl.SSLError, match="CERTIFICATE_VERIFY_FAILED"):
        shake_hands(server, stranger, name="localhost")
