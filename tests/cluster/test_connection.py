"""Addresses of clusters, and the pools that fit their machines; nothing here starts Ray."""

import socket
import sys
from importlib.machinery import PathFinder

import pytest
from support.commands import run

from transformers_massformer.cluster.connection import (
    Resources,
    check_address,
    fitting,
    plan_resources,
    shared_memory_remark,
)


LAPTOP = [{"CPU": 2.0}]
SERVERS = [{"CPU": 10.0}, {"CPU": 7.0}, {"node:head": 1.0}]
GPUS = [{"CPU": 16.0, "GPU": 4.0}, {"CPU": 16.0}]


@pytest.mark.parametrize("address", ["", "cluster", "host:port", "http://host:1", "ray://host:10001", "a b:1"])
def test_malformed_addresses_are_refused(address):
    with pytest.raises(ValueError, match="not the address of a Ray cluster.*HOST:6379"):
        check_address(address)


def test_nobody_listens():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        # Bound, but not listening.
        with pytest.raises(ValueError, match="No Ray cluster answers"):
            check_address(f"127.0.0.1:{port}")
        probe.listen()
        check_address(f"127.0.0.1:{port}")


@pytest.mark.parametrize(
    ("nodes", "arguments", "expected"),
    [
        (LAPTOP, (), Resources(1, 2, 0)),
        (LAPTOP, (2,), Resources(2, 1, 0)),
        # Nodes may join.
        (LAPTOP, (8,), Resources(8, 1, 0)),
        (LAPTOP, (None, 1), Resources(2, 1, 0)),
        (SERVERS, (), Resources(8, 2, 0)),
        (SERVERS, (10,), Resources(10, 1, 0)),
        (SERVERS, (4,), Resources(4, 2, 0)),
        (SERVERS, (None, 5), Resources(3, 5, 0)),
        (GPUS, (None, None, 1.0), Resources(4, 2, 1.0)),
        (GPUS, (None, None, 0.25), Resources(16, 1, 0.25)),
        (GPUS, (2, 8, 1.0), Resources(2, 8, 1.0)),
    ],
)
def test_pools_fit_the_machines(nodes, arguments, expected):
    assert plan_resources(nodes, *arguments) == expected


def test_shares_of_gpus_add_up():
    assert fitting([{"CPU": 64.0, "GPU": 1.0}], 1, 0.1) == 10
    assert fitting([{"CPU": 64.0, "GPU": 3.0}], 1, 2) == 1


@pytest.mark.parametrize(("nodes", "arguments"), [(LAPTOP, (None, 3)), (SERVERS, (None, None, 1.0)), ([], ())])
def test_actors_that_no_machine_holds_are_refused(nodes, arguments):
    with pytest.raises(ValueError, match="No machine of the cluster holds an actor"):
        plan_resources(nodes, *arguments)


def test_short_shared_memory_is_named_with_the_remedy(tmp_path, monkeypatch):
    module = "transformers_massformer.cluster.connection.free_space"
    monkeypatch.setattr(module, lambda folder: 64 * 2**20)
    assert "0.06 GiB free" in shared_memory_remark(tmp_path)
    assert "--shm-size=1g" in shared_memory_remark(tmp_path)
    monkeypatch.setattr(module, lambda folder: 2**30)
    assert not shared_memory_remark(tmp_path)
    monkeypatch.undo()
    assert not shared_memory_remark(tmp_path / "missing")


def test_errors_before_anything_is_loaded(tmp_path):
    arguments = ("segment", tmp_path, "--model", tmp_path, "--output", tmp_path / "out", "--ray")
    assert "'nowhere' is not the address" in run(*arguments, "nowhere", code=1).stderr
    assert "No Ray cluster answers" in run(*arguments, "127.0.0.1:1", code=1).stderr
    assert not (tmp_path / "out").exists()


def test_a_missing_ray_is_named_with_its_extra(tmp_path, monkeypatch):
    find = PathFinder.find_spec
    monkeypatch.setattr(
        PathFinder, "find_spec", lambda name, *rest: None if name.partition(".")[0] == "ray" else find(name, *rest)
    )
    for name in [name for name in sys.modules if name.partition(".")[0] == "ray"]:
        monkeypatch.delitem(sys.modules, name)
    arguments = ("segment", tmp_path, "--model", tmp_path, "--output", tmp_path / "out", "--ray", "local")
    failed = run(*arguments, code=1)
    assert "--ray needs ray" in failed.stderr
    assert "pip install 'transformers-massformer[ray]'" in " ".join(failed.stderr.split())
