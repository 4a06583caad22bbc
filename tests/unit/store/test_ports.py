from __future__ import annotations

from agent.store.ports import RememberedPorts


def test_remembered_across_restarts(tmp_path):
    path = tmp_path / "ports.json"
    assert RememberedPorts(path).get("f", "t") == 0
    RememberedPorts(path).set("f", "t", 4711)
    assert RememberedPorts(path).get("f", "t") == 4711


def test_damaged_file_is_set_aside(tmp_path):
    path = tmp_path / "ports.json"
    path.write_text('{"f/t": "x')
    ports = RememberedPorts(path)
    assert ports.get("f", "t") == 0
    assert (tmp_path / "ports.json.bad").exists()
    ports.set("f", "t", 1)
    assert RememberedPorts(path).get("f", "t") == 1


def test_disk_that_cannot_be_written_is_no_error(tmp_path):
    ports = RememberedPorts(tmp_path / "missing" / "ports.json")
    ports.set("f", "t", 5)
    assert ports.get("f", "t") == 5
