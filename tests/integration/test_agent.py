"""The agent as a process, with processors that only speak the link protocol: drop-ins, swaps, crashes, stops."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.support.agent import FAKE, Agent, call, running
from tests.support.eventually import wait_until

CODE = "ZGVmIGhhbmRsZXIoYyxlKToKICByZXR1cm4gIm9rIgo="


def function(name: str, triggers: dict | None = None, **env: str) -> str:
    spec = {
        "runtime": "python:3.11",
        "handler": "main:handler",
        "env": [{"name": key, "value": value} for key, value in env.items()],
        "build": {"functionSourceCode": CODE},
        "triggers": {"web": {"kind": "http"}} if triggers is None else triggers,
    }
    return json.dumps({"metadata": {"name": name}, "spec": spec}, indent=1)


TICK = {"tick": {"kind": "cron", "attributes": {"interval": "1h"}}}


@pytest.fixture
def agent(tmp_path):
    with running(Agent(tmp_path, FAKE)) as agent:
        yield agent


def address(agent: Agent, name: str) -> str:
    return agent.serving(name)["triggers"]["web"]["address"]


def test_drop_in_appears_changes_breaks_and_is_removed(agent):
    agent.start()
    agent.write("blink.yaml", function("blink", ANSWER="one"))
    url = address(agent, "blink")
    assert call(url).startswith("one ")

    agent.write("blink.yaml", function("blink", ANSWER="two"))
    wait_until(lambda: call(url).startswith("two "))

    agent.write("blink.yaml", function("blink", ANSWER="three").replace('"http"', '"htp"'))
    message = wait_until(lambda: agent.status("blink")["message"])
    assert "blink.yaml:" in message and "htp" in message
    assert call(url).startswith("two ")
    assert "blink.yaml:" in agent.log()

    (agent.functions / "blink.yaml").unlink()
    wait_until(lambda: agent.status("blink") == {})
    with pytest.raises(OSError):
        call(url)
    assert agent.children() == []
    assert not (agent.run / "calls" / "blink.sock").exists()
    assert list((agent.run / "functions").iterdir()) == []


def test_change_touches_only_its_own_function(agent):
    agent.write("a.yaml", function("a"))
    agent.write("b.yaml", function("b"))
    agent.start()
    pid_a, pid_b = agent.serving("a")["pid"], agent.serving("b")["pid"]
    (agent.functions / "a.yaml").touch()
    agent.write("b.yaml", function("b", ANSWER="new"))
    wait_until(lambda: agent.status("b")["pid"] != pid_b)
    agent.serving("b")
    assert agent.serving("a")["pid"] == pid_a


def test_swap_refuses_no_connection(agent):
    agent.write("blink.yaml", function("blink", ANSWER="0"))
    agent.start()
    url = address(agent, "blink")
    for number in range(1, 6):
        agent.write("blink.yaml", function("blink", ANSWER=str(number)))
        wait_until(lambda number=number: call(url).startswith(f"{number} "))


def test_code_in_a_folder_is_watched_also_deeper_and_later(agent):
    agent.start()
    folder = agent.functions / "blink"
    (folder / "lib").mkdir(parents=True)
    (folder / "lib" / "x.py").write_text("x = 1")
    (folder / "main.py").write_text("def handler(c, e): return 1")
    specification = json.loads(function("blink"))
    specification["spec"]["build"] = {}
    (folder / "function.yaml").write_text(json.dumps(specification))
    first = agent.serving("blink")["pid"]
    (folder / "lib" / "x.py").write_text("x = 2")
    second = wait_until(lambda: (pid := agent.serving("blink")["pid"]) != first and pid)
    (folder / "lib" / "later").mkdir()
    (folder / "lib" / "later" / "y.py").write_text("y = 1")
    wait_until(lambda: agent.serving("blink")["pid"] != second)


def test_functions_folder_that_is_replaced_is_watched_again(agent):
    agent.write("a.yaml", function("a"))
    agent.start()
    agent.serving("a")
    agent.functions.rename(agent.functions.with_name("before"))
    wait_until(lambda: "the functions folder is gone" in agent.log())
    assert agent.serving("a")
    agent.functions.mkdir()
    wait_until(lambda: agent.status("a") == {})
    agent.write("b.yaml", function("b"))
    agent.serving("b")
    agent.functions.rename(agent.functions.with_name("before that"))
    agent.functions.with_name("before").rename(agent.functions)
    agent.serving("a")
    wait_until(lambda: agent.status("b") == {})


def test_hang_up_looks_again(agent):
    agent.write("a.yaml", function("a"))
    agent.start()
    pid = agent.serving("a")["pid"]
    agent.process.send_signal(signal.SIGHUP)
    agent.write("b.yaml", function("b"))
    agent.serving("b")
    assert agent.serving("a")["pid"] == pid


def test_second_agent_on_the_same_folders_is_refused(agent):
    agent.start()
    for option in ("--run-dir", "--state-dir"):
        command = agent.command()
        other = command.index("--state-dir" if option == "--run-dir" else "--run-dir")
        command[other + 1] += "-other"
        second = subprocess.run(command, capture_output=True, text=True, timeout=20)
        assert second.returncode == 2
        assert f"another agent (process {agent.process.pid})" in second.stderr and option in second.stderr
        assert "Traceback" not in second.stderr
    assert agent.get("/livez")[0] == 200


def test_crash_loop_parks_one_and_leaves_the_other(agent):
    agent.write("good.yaml", function("good"))
    agent.write("bad.yaml", function("bad", TICK, CRASH_S="0"))
    agent.start()
    wait_until(lambda: agent.status("bad").get("state") == "parked", within_s=20)
    status = agent.status("bad")
    assert "exit code 3" in status["message"] and status["restarts"] == 4
    assert agent.serving("good")["restarts"] == 0
    code, text = agent.get("/readyz")
    assert (code, text) == (503, "bad: parked\n")
    agent.write("bad.yaml", function("bad", TICK))
    agent.serving("bad")
    assert agent.get("/readyz") == (200, "ok\n")


def test_exit_code_2_is_not_tried_again(agent):
    agent.write("bad.yaml", function("bad", TICK, FAIL="2"))
    agent.start()
    wait_until(lambda: agent.status("bad").get("message") == "told to fail")
    assert agent.status("bad")["state"] == "failed"
    assert agent.log().count("told to fail") == 1


def test_killed_processor_is_back_on_the_same_port_without_refusing(agent):
    agent.write("blink.yaml", function("blink"))
    agent.start()
    url = address(agent, "blink")
    pid = agent.serving("blink")["pid"]
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not psutil.pid_exists(pid))
    assert call(url).startswith("hello ")  # waited in the accept queue
    assert agent.serving("blink")["restarts"] == 1


def test_processor_that_writes_nonsense_is_ended(agent):
    agent.write("a.yaml", function("a", TICK, NONSENSE="1"))
    agent.start()
    wait_until(lambda: "not a JSON object" in agent.status("a").get("message", ""))
    agent.write("a.yaml", function("a", TICK))
    agent.serving("a")


def test_readiness_time_out_ends_the_new_one_and_leaves_the_old(agent):
    agent.write("blink.yaml", function("blink", ANSWER="one"))
    agent.start()
    url = address(agent, "blink")
    never = json.loads(function("blink", UNREADY="1"))
    never["spec"]["readinessTimeoutSeconds"] = 1
    agent.write("blink.yaml", json.dumps(never))
    wait_until(lambda: "ready in time" in agent.status("blink")["message"])
    assert call(url).startswith("one ")


def test_stop_drains_and_leaves_nothing(agent):
    agent.write("a.yaml", function("a", SLOW_DRAIN_S="0.5"))
    agent.write("b.yaml", function("b", SLOW_DRAIN_S="0.5"))
    agent.start()
    agent.serving("a"), agent.serving("b")
    processes = agent.children()
    begun = time.monotonic()
    assert agent.stop() == 0
    assert time.monotonic() - begun >= 0.5
    assert not any(process.is_running() for process in processes)
    assert not (agent.run / "admin.json").exists()
    assert list((agent.run / "processors").iterdir()) == []
    assert "SIG" not in agent.log()


def test_what_functions_said_outlives_a_stop_of_the_agent_but_not_their_removal(agent):
    agent.write("a.yaml", function("a"))
    agent.write("b.yaml", function("b"))
    agent.start()
    agent.serving("a"), agent.serving("b")
    logs = [agent.run / "logs" / f"{name}.log" for name in ("a", "b")]
    for log in logs:
        log.write_text("said\n")
    (agent.functions / "b.yaml").unlink()
    wait_until(lambda: agent.status("b") == {})
    assert agent.stop() == 0
    assert [log.exists() for log in logs] == [True, False]
    assert not (agent.run / "functions").exists()  # passwords may stand there
    assert not list(agent.state.glob("functions/*/code"))


def test_second_signal_ends_at_once(agent):
    agent.write("a.yaml", function("a", SLOW_DRAIN_S="60"))
    agent.start()
    agent.serving("a")
    processes = agent.children()
    agent.process.send_signal(signal.SIGTERM)
    wait_until(lambda: "draining" in agent.log())
    assert agent.stop(signal.SIGINT, within_s=10) == 0
    assert not any(process.is_running() for process in processes)


def test_deaf_processor_is_killed_after_its_time(agent):
    deaf = {"web": {"kind": "http", "workerTerminationTimeout": "200ms"}}
    agent.write("a.yaml", function("a", deaf, DEAF="1"))
    agent.start()
    agent.serving("a")
    [process] = agent.children()
    (agent.functions / "a.yaml").unlink()
    wait_until(lambda: agent.status("a") == {})
    assert not process.is_running()
    assert "SIGKILL" in agent.log()


def test_what_a_function_left_running_goes_with_it_and_nothing_is_a_zombie(agent):
    agent.write("a.yaml", function("a", CHILD="1"))
    agent.start()
    agent.serving("a")
    processes = wait_until(lambda: len(found := agent.children()) == 2 and found)
    processes[0].kill()
    wait_until(lambda: not any(process.is_running() for process in processes))
    agent.serving("a")
    (agent.functions / "a.yaml").unlink()
    wait_until(lambda: agent.status("a") == {} and agent.children() == [])


def test_killed_agent_leaves_nothing_and_its_successor_serves_on_the_same_port(agent):
    agent.write("quick.yaml", function("quick", CHILD="1"))
    agent.write("deaf.yaml", function("deaf", DEAF="1"))
    agent.start()
    url = address(agent, "quick")
    agent.serving("deaf")
    processes = wait_until(lambda: len(found := agent.children()) == 3 and found)
    agent.stop(signal.SIGKILL)
    agent.start()
    assert not any(process.is_running() and process.status() != "zombie" for process in processes)
    assert address(agent, "quick") == url
    agent.serving("deaf")
    assert len(list((agent.run / "processors").iterdir())) == 2


def test_record_of_a_number_that_was_used_again_harms_nobody(agent):
    bystander = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        records = agent.run / "processors"
        records.mkdir(parents=True)
        record = {"pid": bystander.pid, "start": 1, "mark": "nobody", "function": "f"}
        (records / f"{bystander.pid}.json").write_text(json.dumps(record))
        (records / "1.json").write_text("{half")
        agent.start()
        assert bystander.poll() is None
        assert list(records.iterdir()) == []
    finally:
        bystander.communicate(b"\n", timeout=10)


def test_picked_port_is_kept_across_a_restart_and_another_is_picked_when_it_is_taken(agent):
    agent.write("a.yaml", function("a"))
    agent.start()
    url = address(agent, "a")
    agent.stop()
    agent.start()
    assert address(agent, "a") == url
    agent.stop()
    with socket.create_server(("127.0.0.1", int(url.rpartition(":")[2]))):
        agent.start()
        assert address(agent, "a") != url


def test_taken_port_names_its_owner_and_is_tried_again(agent):
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as other:
        port = other.getsockname()[1]
        web = {"web": {"kind": "http", "port": port}}
        agent.write("a.yaml", function("a", web))
        agent.start()
        message = wait_until(lambda: agent.status("a").get("message"))
        assert f"127.0.0.1:{port} is taken by process {os.getpid()}" in message
    assert address(agent, "a") == f"http://127.0.0.1:{port}"
    agent.write("b.yaml", function("b", web))
    wait_until(lambda: "is taken by function 'a'" in agent.status("b").get("message", ""))


def test_moving_to_all_interfaces_on_the_same_port(agent):
    agent.write("a.yaml", function("a", ANSWER="one"))
    agent.start()
    url = address(agent, "a")
    port = int(url.rpartition(":")[2])
    agent.write("a.yaml", function("a", {"web": {"kind": "http", "port": port}}, ANSWER="two"))
    wait_until(lambda: call(url).startswith("two "))
    agent.write("a.yaml", function("a", {"web": {"kind": "http", "host": "0.0.0.0", "port": port}}, ANSWER="three"))

    def answers() -> bool:
        with contextlib.suppress(OSError):
            return call(url).startswith("three ")
        return False

    wait_until(answers, within_s=20)


def test_calls_socket_reaches_the_function(agent):
    agent.write("a.yaml", function("a"))
    agent.start()
    agent.serving("a")
    path = agent.run / "calls" / "a.sock"
    assert path.stat().st_mode & 0o777 == 0o660
    folder = os.open(path.parent, os.O_PATH)
    try:
        with socket.socket(socket.AF_UNIX) as caller:
            caller.settimeout(5)
            caller.connect(f"/proc/self/fd/{folder}/a.sock")
            caller.sendall(b"GET / HTTP/1.1\r\n\r\n")
            assert b"hello" in caller.recv(4096)
    finally:
        os.close(folder)


def test_statistics_and_metrics(agent):
    agent.write("a.yaml", function("a"))
    agent.start()
    agent.serving("a")
    status = wait_until(lambda: agent.status("a") if agent.status("a")["triggers"]["web"]["handled"] == 7 else None)
    assert status["triggers"]["web"]["counters"] == {"dropped": 2}
    code, text = agent.get("/metrics")
    assert code == 200
    assert 'headrace_events_total{function="a",trigger="web",result="success"} 7' in text


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /nothing HTTP/1.1\r\n\r\n", b"404"),
        (b"POST /livez HTTP/1.1\r\n\r\n", b"405"),
        (b"nonsense\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\n" + b"X: " + b"y" * 20000 + b"\r\n\r\n", b"400"),
        (b"\xff\xfe\r\n\r\n", b"400"),
    ],
)
def test_admin_listener_stands_nonsense(tmp_path, request_, status):
    with running(Agent(tmp_path, FAKE)) as agent:
        agent.start()
        with socket.create_connection(("127.0.0.1", agent.admin()["port"]), timeout=5) as caller:
            caller.sendall(request_)
            assert caller.recv(4096).startswith(b"HTTP/1.1 " + status)
        assert agent.get("/livez") == (200, "ok\n")
        assert "Traceback" not in agent.log()


def test_systemd_is_told(agent, tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as supervisor:
        name = f"\0headrace-test-{os.getpid()}"
        supervisor.bind(name)
        supervisor.settimeout(10)
        agent.start(NOTIFY_SOCKET="@" + name[1:])
        assert supervisor.recv(4096).startswith(b"READY=1\nSTATUS=")
        agent.stop()
        assert supervisor.recv(4096).startswith(b"STOPPING=1")


def test_unwritable_folder_is_said_clearly(agent):
    command = agent.command()
    command[command.index("--run-dir") + 1] = "/proc/nothing"
    refused = subprocess.run(command, capture_output=True, text=True, timeout=20, cwd=Path(__file__).parents[2])
    assert refused.returncode == 2
    assert "/proc/nothing" in refused.stderr and "--run-dir" in refused.stderr
    assert "Traceback" not in refused.stderr
