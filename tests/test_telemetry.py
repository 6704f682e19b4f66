"""What is counted, and that a log line never carries a text."""

from __future__ import annotations

import json
import logging
import sys

from cierzo.messages import Finish
from cierzo.telemetry import JsonLines, Telemetry


def test_an_answer_is_counted():
    telemetry = Telemetry()
    telemetry.gauge("cierzo_slots", "Slots.", lambda: 4)
    telemetry.requested("/generate", 200, 0.5)
    telemetry.began(0.2)
    telemetry.ended("eos_token", 11, 1.0, Finish("eos_token", prompt_tokens=7, cached_tokens=3))
    telemetry.ended("cancelled", 1, 0.0, None)
    text = telemetry.page().decode()
    for line in (
        "cierzo_slots 4.0",
        'cierzo_requests_total{route="/generate",status="200"} 1.0',
        'cierzo_replies_total{reason="eos_token"} 1.0',
        'cierzo_replies_total{reason="cancelled"} 1.0',
        "cierzo_prompt_tokens_total 7.0",
        "cierzo_cached_tokens_total 3.0",
        "cierzo_answer_tokens_total 12.0",
        "cierzo_time_to_first_token_seconds_sum 0.2",
        "cierzo_time_between_tokens_seconds_sum 0.1",
    ):
        assert line in text


def test_two_servers_count_apart():
    first, second = Telemetry(), Telemetry()
    first.requested("/", 200, 0.1)
    assert b"cierzo_requests_total{" in first.page()
    assert b"cierzo_requests_total{" not in second.page()


def test_a_log_line_is_json_without_the_text_of_an_error():
    try:
        int("what somebody wrote")
    except ValueError:
        record = logging.LogRecord("cierzo.api", logging.ERROR, "", 1, "failed", (), sys.exc_info())
    record.fields = {"id": "req_1"}
    line = JsonLines().format(record)
    told = json.loads(line)
    assert (told["event"], told["level"], told["id"], told["exception"]) == ("failed", "error", "req_1", "ValueError")
    assert "test_telemetry" in told["where"][0]
    assert "what somebody wrote" not in line
