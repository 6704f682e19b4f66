"""The command line as a person meets it: real processes, what they print, their exit status."""

import io
import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path

import jsonschema
import pytest

from cierzo import catalog
from cierzo.cli import COMMANDS, main

ROOT = Path(__file__).parent.parent
SCRIPTED = ("--engine", "scripted:")


def cierzo(*arguments, stdin=b"", env=None):
    """Run the command line in a process of its own; no terminal anywhere."""
    command = [sys.executable, "-m", "cierzo", *arguments]
    env = {**os.environ, **(env or {})}
    return subprocess.run(command, input=stdin, capture_output=True, timeout=60, env=env, check=False)


def answered(*arguments, **options):
    done = cierzo(*arguments, **options)
    assert (done.returncode, b"Traceback" in done.stderr) == (0, False), done.stderr.decode()
    return done.stdout.decode()


def script(tmp_path, text):
    path = tmp_path / "script.toml"
    path.write_text(text)
    return ("--engine", f"scripted:{path}")


# --- what is printed ---------------------------------------------------------------------------------------------


def test_ask_prints_the_answer_alone():
    assert answered("ask", *SCRIPTED, "¿Qué tal? 🌬").endswith("You said: ¿Qué tal? 🌬\n")


@pytest.mark.parametrize(
    ("arguments", "stdin", "question"),
    [
        (["two", "words"], b"", "two words"),
        ([], b"from a pipe\n", "from a pipe"),
        (["-"], b"from a pipe\n", "from a pipe"),
        (["Sum up:"], "línea 1\r\nline 2\n".encode(), "Sum up:\n\nlínea 1\nline 2"),
        (["alone"], b"\n", "alone"),
        (["--", "--odd"], b"", "--odd"),
        ([], b"\xef\xbb\xbfwith a mark", "with a mark"),
        (["right \u200f to \u05e9 left"], b"", "right \u200f to \u05e9 left"),
    ],
)
def test_the_question_comes_from_arguments_and_standard_input(arguments, stdin, question):
    assert answered("ask", *SCRIPTED, *arguments, stdin=stdin).endswith(f"You said: {question}\n")


def test_ask_reads_nothing_where_there_is_nothing(tmp_path):
    command = [sys.executable, "-m", "cierzo", "ask", *SCRIPTED, "alone"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=True)
    assert done.stdout.endswith(b"You said: alone\n")


def test_a_pipe_that_stays_open_is_told_of():
    command = [sys.executable, "-m", "cierzo", "ask", *SCRIPTED, "Sum up:"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as waiting:
        assert b"reading standard input" in waiting.stderr.readline()
        out, _ = waiting.communicate(b"at last", timeout=60)
    assert out.endswith(b"You said: Sum up:\n\nat last\n")


def test_prompt_puts_what_is_piped_in_after_the_last_text():
    out = answered("prompt", "--separate", "--model", "mistral-7b", "a", "b", stdin=b"c")
    assert out == "<s>[INST] a[/INST][INST] b\n\nc[/INST]\n"


def test_sampling_flags_reach_the_engine():
    flags = "--temperature 0 --max-new-tokens 3 --top-p 0.5 --repetition-penalty 1.1 --top-k 5 --min-p 0.1 --seed 7"
    lines = events("ask", *SCRIPTED, *flags.split(), "--stop", "x", "--stop", "y", "--alternatives", "1", "hi")
    assert lines[0]["sampling"] == {
        "temperature": 0.0,
        "max_new_tokens": 3,
        "top_p": 0.5,
        "repetition_penalty": 1.1,
        "top_k": 5,
        "min_p": 0.1,
        "seed": 7,
        "stop": ["x", "y"],
        "alternatives": 1,
        "json_schema": None,
    }
    assert (lines[-1]["reason"], lines[-1]["answer_tokens"], lines[-1]["seed"]) == ("length", 3, 7)


def test_an_answer_is_kept_to_the_schema_in_a_file(tmp_path):
    """With the demo model, and everything besides that the embedded engine can be told."""
    path = tmp_path / "schema.json"
    path.write_text('{"type": "array", "items": {"enum": ["sí", "no"]}, "minItems": 2, "maxItems": 3}')
    told = ("--kv-type", "bf16", "--gpu-layers", "0", "--speculation", "ngram")
    out = answered(*told, "ask", "--json-schema", str(path), "--seed", "1", "¿Quién eres?")
    assert 2 <= len(json.loads(out)) <= 3
    done = cierzo("ask", *SCRIPTED, "--json-schema", str(path), "Hola")
    assert (done.returncode, b"cannot be kept to by the engine scripted" in done.stderr) == (2, True)
    for content, words in (
        (b"{", b"is not JSON"),
        (b'{"not": {}}', b"at /not"),
        (b'{"title": "' + b"x" * 70_000, b"bytes"),
    ):
        path.write_bytes(content)
        done = cierzo("ask", *SCRIPTED, "--json-schema", str(path), "Hola")
        assert (done.returncode, words in done.stderr, done.stderr.count(b"\n")) == (2, True, 1), done.stderr
    done = cierzo("ask", *SCRIPTED, "--json-schema", str(tmp_path / "none"), "Hola")
    assert (done.returncode, b"cannot be read" in done.stderr) == (2, True)


def test_a_flag_before_the_command_counts_and_one_after_it_counts_more(tmp_path):
    broken = f"scripted:{tmp_path / 'none.toml'}"
    assert answered("--engine", "scripted:", "ask", "hi").endswith("hi\n")
    assert answered("--engine", broken, "ask", *SCRIPTED, "hi").endswith("hi\n")
    assert answered("ask", "hi", env={"CIERZO_ENGINE": "scripted:"}).endswith("hi\n")


def test_prompt_is_exact_on_standard_output():
    done = cierzo("prompt", "Hello [INST]", "--system", "Be brief.", "--model", "mistral-7b")
    assert done.stdout == b"<s>[INST] Be brief.\n\nHello [INST][/INST]\n"
    assert b"12 tokens, template v3" in done.stderr
    assert b"plain text to the model: [INST]" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["a", "b"], "<s>[INST] a\n\nb[/INST]"),
        (["a", "b", "--separate"], "<s>[INST] a[/INST][INST] b[/INST]"),
        (["--raw", "<s>[INST] a[/INST] b</s>"], "<s>[INST] a[/INST] b</s>"),
        (["a", "--system", "S", "--template", "v7"], "<s>[SYSTEM_PROMPT] S[/SYSTEM_PROMPT][INST] a[/INST]"),
    ],
)
def test_prompts_of_every_kind(arguments, expected):
    assert answered("prompt", "--model", "mistral-7b", *arguments) == expected + "\n"


def test_prompt_ids():
    lines = answered("prompt", "--ids", "--model", "mistral-7b", "Hi").splitlines()
    assert [line.split()[1] for line in lines] == ["1", "3", "16127", "4"]
    assert [line.split()[2] for line in lines] == ["control", "control", "text", "control"]


def test_tokens_is_readable_without_colour():
    out = answered("tokens", *SCRIPTED, "hola", "--alternatives", "2")
    assert "\x1b" not in out
    assert re.search(r"^ +2  “ am” +\d+ +89\.0 % █████████   “ AM” 7\.7 %$", out, re.MULTILINE)


def test_chat_reads_lines_and_answers_plainly():
    out = answered("chat", *SCRIPTED, stdin=b"uno\n/set temperature 9\ndos\n")
    assert [line.rpartition(" ")[2] for line in out.splitlines()] == ["uno", "dos"]
    assert "\x1b" not in out


def test_models():
    assert "mistral-7b " in answered("models", "list")
    assert "Mistral 7B Instruct v0.3" in answered("models", "show", "mistral-7b")


def test_doctor_tries_the_engine_and_says_so():
    out = answered("doctor", *SCRIPTED)
    assert re.search(r"^ok +answer +\d+ tokens", out, re.MULTILINE)


def test_doctor_says_what_is_wrong_and_ends_with_1(tmp_path):
    done = cierzo("doctor", "--no-try", "--model", str(tmp_path / "none.gguf"))
    assert done.returncode == 1
    assert re.search(rb"^FAIL +model .*none\.gguf", done.stdout, re.MULTILINE)


def test_version_and_help():
    assert re.fullmatch(r"cierzo \d+\.\d+\.\d+\n", answered("--version"))
    assert answered("-h") == answered("--help")


@pytest.mark.parametrize("command", [*COMMANDS, "models pull"])
def test_every_command_has_help(capfd, command):
    with pytest.raises(SystemExit) as left:
        main([*command.split(), "-h"])
    assert left.value.code == 0
    assert capfd.readouterr().out.startswith(f"Usage: cierzo {command}")


def test_help_and_prompt_import_neither_page_nor_engine():
    heavy = ("gradio", "xllamacpp", "aiohttp", "httpx", "prompt_toolkit", "rich")
    tokenizers = ("mistral_common", "huggingface_hub", "numpy", "pydantic", "asyncio")
    seen = {}
    for arguments in (["--help"], ["prompt", "hi", "--model", "mistral-7b"]):
        code = f"import sys; from cierzo.cli import main\ntry: main({arguments!r})\n"
        code += "finally: print(*sys.modules, file=sys.stderr)"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
        seen[arguments[0]] = set(done.stderr.split())
    assert not seen["--help"] & {*heavy, *tokenizers}
    assert not seen["prompt"] & set(heavy)
    assert "cierzo.engines.llamacpp" not in seen["prompt"]


# --- JSON --------------------------------------------------------------------------------------------------------


def schema():
    text = (ROOT / "docs" / "terminal.md").read_text("utf-8")
    found = re.search(r"```json schema\n(.*?)```", text, re.DOTALL)
    assert found
    return json.loads(found[1])


def events(*arguments, status=0, **options):
    done = cierzo(*arguments, "--json", **options)
    assert done.returncode == status, done.stderr
    lines = [json.loads(line) for line in done.stdout.decode().splitlines()]
    check = jsonschema.Draft202012Validator(schema())
    for line in lines:
        check.validate(line)
    return lines


def test_the_events_of_an_answer():
    lines = events("ask", *SCRIPTED, "--alternatives", "2", "hola 🌬")
    kinds = [line["event"] for line in lines]
    assert kinds == ["start", "phase", *["token"] * kinds.count("token"), "finish"]
    tokens = [line for line in lines if line["event"] == "token"]
    assert "".join(token["text"] for token in tokens) == lines[-1]["text"]
    assert [token["index"] for token in tokens] == list(range(len(tokens)))
    assert all(len(token["alternatives"]) == 2 for token in tokens)
    assert lines == [*events("tokens", *SCRIPTED, "--alternatives", "2", "hola 🌬")[:-1], lines[-1]]


def test_the_events_of_the_other_commands():
    (prompt,) = events("prompt", "Hi", "--model", "mistral-7b")
    assert (prompt["ids"], prompt["text"]) == ([1, 3, 16127, 4], "<s>[INST] Hi[/INST]")
    assert {line["name"] for line in events("models", "list")} >= {catalog.DEMO, "mistral-7b"}
    assert [line["name"] for line in events("models", "show", "mistral-7b")] == ["mistral-7b"]
    assert {line["name"] for line in events("doctor", *SCRIPTED)} >= {"cierzo", "machine", "home", "port", "answer"}


def test_an_error_is_the_last_event(tmp_path):
    engine = script(tmp_path, '[[reply]]\ntext = "so far so"\nfail = "die"')
    lines = events("ask", *engine, "hi", status=1)
    assert [line["event"] for line in lines] == ["start", *["token"] * 3, "error"]
    assert (lines[-1]["error"], lines[-1]["status"]) == ("EngineDied", 502)
    assert events("ask", *SCRIPTED, "hi", "--temperature", "7", status=2)[-1]["error"] == "BadSampling"


# --- what is wrong -----------------------------------------------------------------------------------------------

CONTROL = ["<s>", "</s>", "<unk>", "[INST]", "[/INST]", "[TOOL_CALLS]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]"]
CONTROL += ["[TOOL_RESULTS]", "[/TOOL_RESULTS]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[IMG]", "[PREFIX]", "[SUFFIX]"]
CONTROL += ["[MIDDLE]", "[TOOL_CONTENT]", "[ARGS]", "[CALL_ID]", "[THINK]", "[/THINK]", "<pad>", "<|im_start|>"]

# Arguments, standard input, environment, exit status, what the line says.
BAD = [
    pytest.param(["ask", *SCRIPTED, ""], b"", {}, 2, "is empty", id="empty"),
    pytest.param(["ask", *SCRIPTED, " \n\t"], b"", {}, 2, "is empty", id="blank"),
    pytest.param(["ask", *SCRIPTED], b"", {}, 2, "is empty", id="nothing-piped"),
    pytest.param(["prompt", ""], b"", {}, 2, "is empty", id="empty-prompt"),
    pytest.param(["ask", *SCRIPTED, "-"], b"x" * 10_000_000, {}, 2, "longer than 8,000,000 bytes", id="10-MB"),
    pytest.param(["ask", *SCRIPTED, "-"], b"word " * 500_000, {}, 2, "at most 2,000,000", id="2.5-MB"),
    pytest.param(["ask", *SCRIPTED, "-"], b"word " * 300_000, {}, 2, "room for", id="too-long-for-the-window"),
    pytest.param(["ask", *SCRIPTED, b"a\xffb"], b"", {}, 2, "half a character", id="bytes-in-arguments"),
    pytest.param(["ask", *SCRIPTED, b"a\xed\xa0\x80b"], b"", {}, 2, "half a character", id="surrogate"),
    pytest.param(["ask", *SCRIPTED, "-"], b"a\xed\xa0\x80b", {}, 2, "not UTF-8", id="surrogate-piped"),
    pytest.param(["ask", *SCRIPTED, "-"], b"\xff\xfea\x00", {}, 2, "not UTF-8", id="UTF-16-piped"),
    pytest.param(["ask", *SCRIPTED, "-"], b"a\x00b", {}, 2, "NUL", id="NUL-piped"),
    pytest.param(["ask", *SCRIPTED, "hi", "--system", b"\xff"], b"", {}, 2, "half a character", id="system"),
    pytest.param(["prompt", b"\xff"], b"", {}, 2, "half a character", id="prompt-bytes"),
    pytest.param(["chat", *SCRIPTED, "--system", b"\xff"], b"", {}, 2, "half a character", id="chat-system"),
    *[
        pytest.param(["ask", *SCRIPTED, "hi", f"--{name}", value], b"", {}, 2, said, id=f"{name}={value}")
        for name, value, said in [
            ("temperature", "nan", "temperature must be between 0 and 5"),
            ("temperature", "inf", "temperature must be between 0 and 5"),
            ("temperature", "-0.1", "temperature must be between 0 and 5"),
            ("temperature", "hot", "not a valid float"),
            ("top-p", "1.01", "top_p must be between 0 and 1"),
            ("min-p", "-1", "min_p must be between 0 and 1"),
            ("top-k", "-1", "top_k must be between"),
            ("repetition-penalty", "0", "repetition_penalty must be between"),
            ("max-new-tokens", "0", "max_new_tokens must be between"),
            ("max-new-tokens", "1.5", "not a valid integer"),
            ("max-new-tokens", "9" * 400, "max_new_tokens must be"),
            ("seed", "-1", "seed must be between"),
            ("seed", "4294967295", "seed must be between"),
            ("alternatives", "21", "alternatives must be between 0 and 20"),
            ("stop", "", "stop text"),
            ("stop", "x" * 300, "stop text"),
        ]
    ],
    pytest.param(["aks", "hi"], b"", {}, 2, "did you mean ask", id="unknown-command"),
    pytest.param(["ask", "--temprature", "1", "hi"], b"", {}, 2, "--temperature", id="unknown-flag"),
    pytest.param(["ask", "hi", "--model", "mistral-7B-v9"], b"", {}, 2, "did you mean", id="unknown-model"),
    pytest.param(["ask", "hi", "--model", "/none.gguf"], b"", {}, 2, "no model file", id="no-such-file"),
    pytest.param(["ask", "hi", "--model", "mistral-7b"], b"", {}, 1, "cierzo models pull", id="not-downloaded"),
    pytest.param(["ask", "hi", "--model", sys.executable], b"", {}, 1, "GGUF", id="not-a-model"),
    pytest.param(["ask", "hi", "--model", "\x1b[31m"], b"", {}, 2, "no model", id="escape-in-a-name"),
    pytest.param(["prompt", "hi", "--template", "v99"], b"", {}, 2, "v99", id="unknown-template"),
    pytest.param(["models", "show", "none"], b"", {}, 2, "no model", id="show-unknown"),
    pytest.param(["models", "pull", "none"], b"", {}, 2, "no model", id="pull-unknown"),
    pytest.param(["models", "rm", "none"], b"", {}, 2, "no model", id="rm-unknown"),
    pytest.param(["models", "rm", "mistral-7b"], b"", {}, 2, "nothing to remove", id="rm-nothing"),
    pytest.param(["models", "rm", "cierzo-demo"], b"", {}, 1, "comes with Cierzo", id="rm-demo"),
    pytest.param(["models", "use", "none"], b"", {}, 2, "no model", id="use-unknown"),
    pytest.param(["models", "show", "hf:a/b"], b"", {}, 2, "hf:OWNER/REPO/FILE.gguf", id="half-a-name-of-the-hub"),
    pytest.param(["ask", "hi", "--model", "hf:a/b/c.gguf"], b"", {}, 1, "models pull hf:a/b/c.gguf", id="hub"),
    pytest.param(
        ["prompt", "hi", "--model", "hf:a/b/c.gguf"], b"", {}, 1, "models pull hf:a/b/c.gguf", id="hub-prompt"
    ),
    pytest.param(["models", "pul"], b"", {}, 2, "pul", id="unknown-subcommand"),
    pytest.param(["ask", "hi", "--engine", "vllm:"], b"", {}, 2, "no engine", id="unknown-engine"),
    pytest.param(["ask", "hi", "--engine", "scripted:/none"], b"", {}, 2, "cannot be read", id="no-script"),
    pytest.param(["--port", "99999"], b"", {}, 2, "--port", id="port"),
    pytest.param(["--host", " "], b"", {}, 2, "--host", id="host"),
    pytest.param(["ask", *SCRIPTED, "hi"], b"", {"CIERZO_PORT": "x"}, 2, "CIERZO_PORT", id="environment"),
    pytest.param(["ask", *SCRIPTED, "hi"], b"", {"CIERZO_LOG": "loud"}, 2, "CIERZO_LOG", id="log"),
]


@pytest.mark.parametrize("case", [pytest.param(case.values, id=case.id) for case in BAD])
def test_what_is_wrong_is_one_line_and_a_status(monkeypatch, capfd, case):
    """In this process, since a hundred new ones take minutes: `main` is all that a process runs."""
    arguments, stdin, env, status, said = case
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin), "utf-8"))
    with pytest.raises(SystemExit) as left:
        main([os.fsdecode(argument) for argument in arguments])
    out, err = capfd.readouterr()
    one_line(subprocess.CompletedProcess(arguments, left.value.code, out.encode(), err.encode()), status, said)


@pytest.mark.parametrize("case", [pytest.param(case.values, id=case.id) for case in (BAD[8], BAD[15], BAD[-1])])
def test_what_is_wrong_is_the_same_in_a_process_of_its_own(case):
    arguments, stdin, env, status, said = case
    one_line(cierzo(*arguments, stdin=stdin, env=env), status, said)


def one_line(done, status, said):
    err = done.stderr.decode()
    assert "Traceback" not in err
    assert (done.returncode, done.stdout) == (status, b""), err
    assert err.startswith("cierzo: ")
    assert (err.count("\n"), err[-1]) == (1, "\n")
    assert said in err
    assert "\x1b" not in err
    assert len(err) < 500


def test_control_strings_are_plain_text_to_the_model():
    text = " ".join(CONTROL)
    (prompt,) = events("prompt", text, "--model", "mistral-7b")
    assert [token["text"] for token in prompt["tokens"] if token["control"]] == ["<s>", "[INST]", "[/INST]"]
    assert prompt["text"] == f"<s>[INST] {text}[/INST]"
    assert answered("ask", *SCRIPTED, text).endswith(f"{text}\n")
    sys.stdout.write(f"bad inputs: {len(BAD)} refused in one line each; control strings as text: {len(CONTROL)}\n")


def test_a_damaged_model_file(tmp_path):
    head = b"GGUF" + struct.pack("<IQQ", 3, 10, 10)
    for name, content in {
        "empty": b"",
        "cut": head,
        "garbage": b"GGUF" + bytes(range(256)) * 16,
        "text": b"hi",
    }.items():
        (tmp_path / f"{name}.gguf").write_bytes(content)
        one_line(cierzo("ask", "hi", "--model", str(tmp_path / f"{name}.gguf")), 1, name)


def test_a_model_file_that_may_not_be_read(tmp_path):
    path = tmp_path / "locked.gguf"
    path.write_bytes(b"GGUF")
    path.chmod(0)
    if os.access(path, os.R_OK):  # for root, who may read everything, a folder stands in
        path.unlink()
        path.mkdir()
    done = cierzo("ask", "hi", "--model", str(path))
    one_line(done, 2 if path.is_dir() else 1, "locked.gguf")


@pytest.mark.parametrize("command", [["ask"], ["tokens"], ["chat", "--no-save"]])
def test_a_home_that_cannot_be_written_does_not_matter(command):
    done = cierzo(*command, *SCRIPTED, stdin=b"hi\n", env={"CIERZO_HOME": "/dev/null/home"})
    assert done.returncode == 0, done.stderr
    assert b"You said: hi" in done.stdout


def test_a_port_that_is_taken():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        one_line(cierzo("--no-open", "--port", port, *SCRIPTED), 2, port)
        assert re.search(rb"^warn +port ", cierzo("doctor", *SCRIPTED, env={"CIERZO_PORT": port}).stdout, re.MULTILINE)


def test_an_address_that_others_can_reach_needs_a_word():
    one_line(cierzo("--no-open", "--host", "0.0.0.0", *SCRIPTED), 2, "--insecure")


def test_the_unexpected_is_one_line_too_unless_details_are_wanted(tmp_path):
    code = "import cierzo.app\ndef broken(settings): raise RuntimeError('a\\nb')\ncierzo.app.open_chat = broken\n"
    code += "from cierzo.cli import main; main(['ask', '--engine', 'scripted:', 'hi'])"
    for level, traceback in (("warning", False), ("debug", True)):
        env = {**os.environ, "CIERZO_LOG": level}
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, env=env, check=False
        )
        assert done.returncode == 1
        assert ("Traceback" in done.stderr) == traceback
        assert "unexpected RuntimeError: a b" in done.stderr


# --- how it ends -------------------------------------------------------------------------------------------------

ENDLESS = '[[reply]]\ntext = "on and "\nrepeat = true\ndelay = 0.01'


def start(*arguments):
    command = [sys.executable, "-m", "cierzo", *arguments]
    return subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0
    )


@pytest.mark.parametrize("as_json", [[], ["--json"]])
def test_ctrl_c_ends_ask_with_130_and_keeps_what_was_said(tmp_path, as_json):
    with start("ask", *script(tmp_path, ENDLESS), "--max-new-tokens", "100000", "hi", *as_json) as running:
        first = running.stdout.read(6)
        running.send_signal(signal.SIGINT)
        out, err = running.communicate(timeout=20)
    assert running.returncode == 130
    assert b"Traceback" not in err
    if as_json:
        assert json.loads((first + out).splitlines()[-1])["reason"] == "stopped"
    else:
        assert (first + out).startswith(b"on")
        assert err == b"[stopped]\n"


def test_ctrl_c_while_it_waits_for_the_model(tmp_path):
    with start("ask", *script(tmp_path, '[[reply]]\nfail = "hang"'), "hi", "--json") as running:
        running.stdout.readline()
        time.sleep(0.2)
        running.send_signal(signal.SIGINT)
        _, err = running.communicate(timeout=20)
    assert (running.returncode, b"Traceback" in err) == (130, False)


@pytest.mark.parametrize("command", ["ask", "tokens"])
def test_a_reader_that_has_had_enough_ends_it_quietly(tmp_path, command):
    with start(command, *script(tmp_path, ENDLESS), "--max-new-tokens", "100000", "hi") as running:
        running.stdout.read(1)
        running.stdout.close()
        running.wait(timeout=20)
        assert running.stderr.read() == b""
    assert running.returncode == 1


def test_a_full_disk_is_one_line():
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full on this system")
    with Path("/dev/full").open("wb") as full:
        command = [sys.executable, "-m", "cierzo", "ask", *SCRIPTED, "hi"]
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=full, stderr=subprocess.PIPE, timeout=60, check=False
        )
    assert done.returncode == 1
    assert done.stderr.decode().count("\n") == 1
    assert "No space left" in done.stderr.decode()


def test_a_terminal_that_is_not_utf_8():
    env = {"PYTHONIOENCODING": "ascii", "LC_ALL": "C"}
    assert cierzo("ask", *SCRIPTED, "¿eh?", env=env).stdout.endswith(b"You said: ?eh?\n")
    assert events("ask", *SCRIPTED, "¿eh?", env=env)[-1]["text"].endswith("¿eh?")
