from __future__ import annotations

from agent.supervisor.metrics import exposition

TRIGGER = {
    "kind": "http",
    "up": True,
    "handled": 3,
    "failed": 1,
    "counters": {"dropped": 2},
    "p50_us": 250.0,
    "p99_us": 1000.0,
    "seconds_sum": 0.5,
}


def test_samples_are_labelled_and_escaped():
    text = exposition({"functions": {'a"b\n': {"state": "serving", "restarts": 4, "triggers": {"web": TRIGGER}}}})
    lines = text.splitlines()
    assert 'headrace_function_restarts_total{function="a\\"b\\n"} 4' in lines
    assert 'headrace_events_total{function="a\\"b\\n",trigger="web",result="failure"} 1' in lines
    assert 'headrace_event_duration_seconds{function="a\\"b\\n",trigger="web",quantile="0.5"} 0.00025' in lines
    assert 'headrace_event_duration_seconds_sum{function="a\\"b\\n",trigger="web"} 0.5' in lines
    assert 'headrace_trigger_counter_total{function="a\\"b\\n",trigger="web",counter="dropped"} 2' in lines
    milliseconds = "nuclio_processor_handled_events_duration_milliseconds_sum"
    assert f'{milliseconds}{{function="a\\"b\\n",trigger_id="web",trigger_kind="http"}} 500' in lines


def test_every_metric_is_declared_once_and_before_its_samples():
    text = exposition({"functions": {"f": {"state": "parked", "restarts": 0, "triggers": {"web": TRIGGER}}}})
    declared = [line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")]
    assert len(declared) == len(set(declared))
    assert all(
        line.startswith("#") or line.split("{")[0].split(" ")[0].startswith(tuple(declared))
        for line in text.splitlines()
    )


def test_no_functions():
    assert "headrace_functions 0\n" in exposition({"functions": {}})
