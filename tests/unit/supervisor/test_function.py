"""The state machine of one function: what is started, told to go, released and given up, and when."""

from __future__ import annotations

from agent.model.errors import SpecError
from agent.supervisor.sockets import AddressTaken
from tests.unit.supervisor.fakes import World, version


def test_starts_waits_for_ready_then_goes():
    world = World()
    world.function.apply(version())
    world.look()
    assert world.function.state == "starting"
    assert not world.last.started
    world.last.ready()
    world.look()
    assert (world.function.state, world.last.started) == ("serving", {"t"})


def test_swap_starts_a_trigger_only_when_the_old_one_released_it():
    world = World()
    old = world.serve(version("1", ("a", "b")))
    world.function.apply(version("2", ("a", "b", "c")))
    world.look()
    new = world.last
    assert old.told == []  # it serves until the new one is ready
    new.ready()
    world.look()
    assert old.told == ["release"]
    assert new.started == {"c"}  # what the old one never had
    assert world.function.state == "ready"
    old.released.add("b")
    world.look()
    assert new.started == {"b", "c"}
    old.exits(0)
    world.look()
    assert new.started == {"a", "b", "c"}
    assert world.function.state == "serving"
    assert world.function.restarts == 0


def test_a_new_version_that_cannot_start_leaves_the_old_one_alone():
    world = World()
    old = world.serve(version("1"))
    world.function.apply(version("2"))
    world.look()
    world.last.exits(2)
    assert world.look() is None
    assert (world.function.state, world.function.message, old.told) == ("serving", "exit code 2", [])
    world.look(after_s=10_000)
    assert len(world.launched) == 2


def test_going_back_to_what_runs_swaps_nothing():
    world = World()
    world.serve(version("1"))
    world.function.apply(version("2"))
    world.look()
    world.last.exits(2)
    world.look()
    world.function.apply(version("1"))
    world.look()
    assert len(world.launched) == 2
    assert world.function.message == ""


def test_newer_change_replaces_one_that_is_still_starting():
    world = World()
    old = world.serve(version("1"))
    world.function.apply(version("2"))
    world.look()
    second = world.last
    world.function.apply(version("3"))
    world.look()
    assert second.told == ["end"]
    assert world.last.version.digest == "3"
    assert old.told == []
    second.exits(-15)
    world.look()
    assert world.unused == ["2"]


def test_crash_is_restarted_after_a_growing_delay():
    world = World()
    world.serve(version())
    world.last.exits(-9)
    first = world.look()
    assert first is not None and 0.5 <= first <= 1.0
    assert (world.function.state, world.function.restarts) == ("failed", 1)
    assert world.function._desired in world.sockets.kept  # connections wait for the next one
    world.look(after_s=first)
    world.last.exits(1)
    second = world.look()
    assert second is not None and 1.0 <= second <= 2.0


def test_crash_loop_parks_and_a_change_ends_that():
    world = World()
    world.function.apply(version())
    delay = world.look() or 0.0
    for _ in range(3):
        world.last.exits(1)
        delay = world.look() or 0.0
        world.now += min(delay, 8.0)
        if delay < 300:
            world.look()
    assert world.function.state == "parked"
    assert "exit code 1" in world.function.message
    assert world.sockets.kept == []  # nobody should wait for an answer that does not come
    attempts = len(world.launched)
    world.look(after_s=400)
    assert len(world.launched) == attempts + 1  # tried again, rarely
    world.last.exits(1)
    world.look()
    world.function.apply(version("2"))
    world.look()
    assert world.function.state == "starting"
    world.last.ready()
    world.look()
    assert (world.function.state, world.function.message) == ("serving", "")


def test_stable_time_clears_the_count():
    world = World()
    for _ in range(5):
        if world.function.current is None:
            world.function.apply(version()) if not world.launched else None
            world.look(after_s=1.0)
            world.last.ready()
            world.look()
        world.now += 11.0
        world.last.exits(1)
        delay = world.look()
        assert delay is not None and delay <= 1.0
    assert world.function.state == "failed"


def test_exit_code_2_is_not_tried_again_until_changed():
    world = World()
    world.function.apply(version())
    world.look()
    world.last.exits(2)
    assert world.look() is None
    assert world.function.state == "failed"
    world.look(after_s=10_000)
    assert len(world.launched) == 1
    world.function.apply(version("2"))
    world.look()
    assert len(world.launched) == 2


def test_version_that_serves_and_then_crash_loops_falls_back_to_the_proven_one():
    world = World()
    old = world.serve(version("1"))
    world.now += 60
    world.serve(version("2"))
    old.exits(0)
    for _ in range(3):
        world.last.exits(1)
        world.look()
        world.look(after_s=8.0)
        if world.last.version.digest == "2":
            world.last.ready()
            world.look()
    assert world.last.version.digest == "1"
    world.last.ready()
    world.look()
    assert world.function.state == "serving"
    assert "parked" in world.function.message


def test_rejected_file_shows_its_message_and_nothing_else_changes():
    world = World()
    old = world.serve(version())
    world.function.reject("f.yaml:3:1: spec.handler: expected text")
    world.look()
    assert (world.function.state, old.told, len(world.launched)) == ("serving", [], 1)
    assert "f.yaml:3" in world.function.message
    world.function.accept()
    assert world.function.message == ""


def test_taken_address_is_tried_again():
    world = World()
    world.sockets.error = AddressTaken("127.0.0.1:80 is taken by process 7 (nginx)")
    world.function.apply(version())
    delay = world.look()
    assert delay is not None
    assert "nginx" in world.function.message
    world.sockets.error = None
    world.look(after_s=delay)
    assert world.function.state == "starting"


def test_address_that_overlaps_with_our_own_old_version_makes_that_one_leave():
    world = World()
    old = world.serve(version("1"))
    world.sockets.error = AddressTaken("0.0.0.0:80 is taken by function 'f'", function="f")
    world.function.apply(version("2"))
    delay = world.look()
    assert old.told == ["release"]
    world.sockets.error = None
    world.look(after_s=delay or 0.0)
    assert world.last.version.digest == "2"


def test_unusable_address_is_given_up():
    world = World()
    world.sockets.error = SpecError("'nowhere' is not an IP address")
    world.function.apply(version())
    assert world.look() is None
    assert world.function.state == "failed"


def test_stop_drains_and_forgets():
    world = World()
    old = world.serve(version())
    world.function.stop()
    world.look()
    assert (old.told, world.function.state) == (["release"], "draining")
    old.exits(0)
    world.look()
    assert (world.function.processors(), world.function.state) == ([], "stopped")


def test_disabled_function_is_stopped():
    world = World()
    old = world.serve(version("1"))
    world.function.apply(version("2", disable=True))
    world.look()
    assert old.told == ["release"]
    old.exits(0)
    assert world.look() is None
    assert world.function.state == "stopped"


def test_restart_policy_no():
    world = World()
    world.serve(version(platform={"attributes": {"restartPolicy": {"name": "no"}}}))
    world.last.exits(1)
    assert world.look() is None
    assert world.function.state == "failed"


def test_function_without_triggers_serves():
    world = World()
    world.serve(version(triggers=()))
    assert world.function.state == "serving"
