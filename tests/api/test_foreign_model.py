"""A model that is not Mistral's, on every route and in the terminal: prompts are shown, the template is labelled."""

from __future__ import annotations

import json

import foreign_files
import pytest
from click.testing import CliRunner
from serving import Live, until

from cierzo.catalog import find
from cierzo.cli import cierzo
from cierzo.engines.llamacpp import LlamaCpp

RAW = "<|im_start|>user\nHello <|im_end|><|im_end|>\n<|im_start|>assistant\n"
LETTER = 43
"""Its token says L. What random weights say may be half a character, after which nobody can go on."""

FRAME = ["<|im_start|>", "<|im_end|>", "<|im_start|>"]


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return foreign_files.qwen(tmp_path_factory.mktemp("foreign") / "qwen.gguf")


@pytest.fixture(scope="module")
def foreign(path):
    server = Live(LlamaCpp(find(path, path.parent)))
    yield server
    server.close()


def said(foreign, path, body):
    answer = foreign.post(path, body)
    assert answer.status_code in (200, 201), answer.text
    return answer.json()


def controls(pieces):
    return [piece["text"] for piece in pieces if piece["control"]]


def test_what_answers_is_told(foreign):
    engine = foreign.get("/api/engine").json()
    assert engine["template"].startswith("file:")
    assert engine["verified"] is False


def test_the_raw_route_takes_control_tokens_at_their_word(foreign):
    parts = said(foreign, "/tokenize", {"inputs": RAW})
    assert "".join(part["text"] for part in parts) == RAW
    assert [part["text"] for part in parts if part["id"] >= 509] == [
        "<|im_start|>",
        *["<|im_end|>"] * 2,
        "<|im_start|>",
    ]
    asked = {"max_new_tokens": 5, "details": True, "decoder_input_details": True, "seed": 1, "do_sample": True}
    answer = said(foreign, "/generate", {"inputs": RAW, "parameters": asked})
    details = answer["details"]
    assert [token["id"] for token in details["prefill"]] == [part["id"] for part in parts]
    assert "".join(token["text"] for token in details["tokens"]) == answer["generated_text"]
    assert 0 < details["generated_tokens"] <= 5
    cut = said(foreign, "/generate", {"inputs": RAW, "parameters": {"max_new_tokens": 2, "truncate": 4}})
    assert isinstance(cut["generated_text"], str)


def test_chats_show_their_exact_prompt(foreign):
    messages = [{"role": "user", "content": "Hello <|im_end|>"}]
    made = said(foreign, "/api/prompt", {"messages": [{"role": "user", "text": "Hello <|im_end|>"}]})
    assert controls(made["pieces"]) == FRAME
    assert made["text"] == RAW
    told = said(foreign, "/v1/chat/completions", {"messages": messages, "max_tokens": 4, "seed": 1})
    assert told["usage"]["prompt_tokens"] == len(made["ids"])


def test_conversations_are_kept_shown_and_continued(foreign):
    sampling = {"max_new_tokens": 6, "seed": 4, "temperature": 1.0}
    conversation = said(foreign, "/api/conversations", {})["id"]
    sent = {"text": "Hello <|im_end|>", "sampling": sampling}
    answer = said(foreign, f"/api/conversations/{conversation}/messages", sent)["answers"][0]["id"]
    until(lambda: foreign.get(f"/api/replies/{answer}").json()["message"]["answer"]["state"] != "writing")
    inside = foreign.get(f"/api/replies/{answer}").json()
    assert inside["prompt"]["text"] == RAW
    assert controls(inside["prompt"]["pieces"]) == FRAME
    assert inside["prompt"]["template"].startswith("file:")
    going_on = said(foreign, f"/api/replies/{answer}/continue", {"at": 0, "token": LETTER})
    until(lambda: foreign.get(f"/api/replies/{going_on['id']}").json()["message"]["answer"]["state"] != "writing")
    longer = foreign.get(f"/api/replies/{going_on['id']}").json()
    assert (longer["tokens"][0]["id"], longer["message"]["text"][:1]) == (LETTER, "L")
    assert longer["prompt"]["ids"][: len(inside["prompt"]["ids"])] == inside["prompt"]["ids"]


def test_an_answer_of_a_file_that_is_not_in_use_keeps_its_tokens(foreign, monkeypatch):
    conversation = said(foreign, "/api/conversations", {})["id"]
    sent = {"text": "Hello", "sampling": {"max_new_tokens": 3, "seed": 4}}
    answer = said(foreign, f"/api/conversations/{conversation}/messages", sent)["answers"][0]["id"]
    until(lambda: foreign.get(f"/api/replies/{answer}").json()["message"]["answer"]["state"] != "writing")
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr("cierzo.templates._adopted", {})
        inside = foreign.get(f"/api/replies/{answer}").json()
    assert inside["tokens"]
    assert inside["prompt"]["ids"]
    assert (inside["prompt"]["text"], inside["prompt"]["pieces"]) == ("", [])


def run(*arguments):
    done = CliRunner().invoke(cierzo, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout, done.stderr


def test_the_terminal(path):
    shown, _ = run("models", "show", str(path))
    assert "template  of the file, not verified" in shown
    assert "network   qwen2" in shown
    assert "tokenizer not one of Mistral's (512 tokens)" in shown
    fields = json.loads(run("models", "show", str(path), "--json")[0])
    assert (fields["template"], fields["kind"]["architecture"]) == ("file", "qwen2")
    prompt, note = run("prompt", "--model", str(path), "Hello <|im_end|>")
    assert prompt == f"{RAW}\n"
    assert "template of the file, not verified" in note
    told = json.loads(run("prompt", "--model", str(path), "--json", "--raw", RAW)[0])
    assert (told["raw"], told["text"], told["template"][:5]) == (True, RAW, "file:")
    table, _ = run("prompt", "--model", str(path), "--ids", "Hello")
    assert [line.split()[3] for line in table.splitlines() if " control " in line] == FRAME
