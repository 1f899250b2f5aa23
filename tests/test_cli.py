import gzip
import io
import json
import os
import pickle
import pty
import shutil
import subprocess
import sys
import zlib
from pathlib import Path

import pandas as pd
import pytest
import yaml
from conftest import Letters
from safetensors import SafetensorError

from interp_toolkit.cli import main
from interp_toolkit.evaluation.driver import EVALUATIONS, Evaluation, find_evaluation

pytestmark = pytest.mark.default_dtype


def _run(capsys, *arguments):
    code = main(arguments)
    out, err = capsys.readouterr()
    return code, out, err


@pytest.mark.slow
def test_explain_prints_a_table_json_or_csv(capsys):
    command = ["explain", "Tell me about baseball.", "Tell me about Poland."]
    code, out, err = _run(capsys, *command)
    assert (code, err) == (0, "")
    assert out.splitlines()[0].split() == ["source", "description", "evidence", "confidence"]
    assert all(len(line) <= 80 for line in out.splitlines())
    code, out, _ = _run(capsys, *command, "--json", "--null")
    rows = json.loads(out)
    assert code == 0
    assert [row["source"] for row in rows] == [*command[1:], "null vector"]
    assert abs(rows[-1]["evidence"]) < 1e-3
    code, out, _ = _run(capsys, *command, "--csv", "--samples", "2", "--seed", "1")
    table = pd.read_csv(io.StringIO(out))
    assert code == 0
    assert list(table["sample"]) == [0, 1, 0, 1]


def test_explain_and_report_write_one_page(capsys, tmp_path):
    page = tmp_path / "page.html"
    code, out, err = _run(capsys, "explain", "Tell me about baseball.", "--html", str(page))
    assert (code, out, err) == (0, f"written to {page}\n", "")
    assert "Tell me about baseball." in page.read_text()
    result = dict(settings=dict(n=3, seed=0), tables=dict(readings=[dict(condition="shuffled", value=0.04, n=3)]))
    (tmp_path / "some.json").write_text(json.dumps(result))
    both = tmp_path / "both.html"
    code, out, err = _run(capsys, "report", str(tmp_path), "--html", str(both))
    assert (code, out, err) == (0, f"written to {both}\n", "")
    assert "shuffled" in both.read_text()
    code, _, err = _run(capsys, "report", str(tmp_path / "none.json"), "--html", str(both))
    assert code == 2
    assert "cannot read results at" in err


def test_info_shows_contract_and_run(capsys):
    code, out, _ = _run(capsys, "info", "smollm2_scalar_affine")
    assert code == 0
    assert "HuggingFaceTB/SmolLM2-135M-Instruct" in out
    assert "blocks.23.hook_resid_post" in out
    assert "577" in out
    assert "contract.block_signs         30 entries; --json shows them\n" in out
    code, out, _ = _run(capsys, "info", "smollm2_scalar_affine", "--json")
    contract = json.loads(out)["contract"]
    assert contract["d_model"] == 576
    assert len(contract["block_signs"]) == 30


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["explain", ""], "prompt 0 is empty"),
        (["explain", "a", "--layer", "9"], "trained on vectors from blocks.23.hook_resid_post"),
        (["explain", "a", "--layer", "99"], "blocks.99.hook_resid_post does not exist: the model has 30"),
        (["explain", "a", "--position", "900"], "position 900 does not exist in prompt 0"),
        (
            ["explain", "a", "--any-layer"],
            "on_mismatch (--any-layer) would have no effect: no sites (--layer) are given",
        ),
        (["explain", "a", "--seed", "-1"], "expected seed of at least 0, got -1"),
        (["explain", "a", "--samples", "0"], "expected n of at least 1"),
        (["explain", "a", "--adapter", "/no/adapter"], "no adapter at /no/adapter: no such file or folder"),
        (["explain", "a", "--model", "/no/model"], "/no/model is no folder"),
        (["info", "./none"], "no adapter at ./none"),
        (["train", "/no/run.yaml"], "expected a training file at /no/run.yaml"),
    ],
)
def test_a_mistake_is_one_line_and_exit_2(capsys, arguments, message):
    code, out, err = _run(capsys, *arguments)
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert err.startswith("interp-toolkit: error: ")
    assert message in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "required: COMMAND; see interp-toolkit --help"),
        (["explian"], "invalid choice: 'explian'"),
        (["explain"], "required: TEXT; see interp-toolkit explain --help"),
        (["explain", "a", "--samples", "x"], "argument --samples: invalid int value: 'x'"),
        (
            ["train", "run.yaml", "--lr", "x"],
            "--lr: invalid float value: 'x'; see interp-toolkit train --help",
        ),
        (["sae", "score"], "see interp-toolkit sae score --help"),
        (["explain", "a", "--html", "."], "expected a file to write, . is a folder"),
    ],
)
def test_a_mistake_in_the_options_is_one_line_with_a_hint(capsys, arguments, message):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    out, err = capsys.readouterr()
    assert (stopped.value.code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("interp-toolkit: error: ")
    assert message in err


def test_what_the_system_refuses_is_one_line_too(capsys, tmp_path):
    (tmp_path / "a.json").write_text('{"recall": [0.5, 0.4, 0.6]}')
    (tmp_path / "file").write_text("")
    code, out, err = _run(capsys, "report", str(tmp_path / "a.json"), "--html", str(tmp_path / "file" / "b.html"))
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert str(tmp_path / "file") in err
    code, _, err = _run(capsys, "explain", "caf\udce9")
    assert code == 2
    assert "expected texts in UTF-8, got 'caf\\udce9'" in err


def test_a_damaged_adapter_and_a_wrong_key_are_one_line_too(capsys, tmp_path, checkpoints):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "adapter_config.json").write_text("{")
    code, _, err = _run(capsys, "info", str(tmp_path / "a"))
    assert code == 2
    assert "adapter_config.json is damaged" in err
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(dict(output="o", adapter=dict(kind="scale"), pairs="p", lr=1)))
    code, _, err = _run(capsys, "train", str(tmp_path / "run.yaml"))
    assert code == 2
    assert "unknown key 'lr' in the training file" in err
    code, _, err = _run(capsys, "explain", "a", "--model", str(checkpoints["llama"]))
    assert code == 2
    assert "no adapter is shipped for" in err


def test_damaged_weights_of_a_model_are_one_line(capsys, tmp_path, checkpoints):
    folder = tmp_path / "model"
    shutil.copytree(checkpoints["llama"], folder)
    whole = (folder / "model.safetensors").read_bytes()
    for damaged in (whole[: len(whole) // 2], b"x" * 100):
        (folder / "model.safetensors").write_bytes(damaged)
        code, out, err = _run(capsys, "explain", "a", "--model", str(folder))
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert err.startswith("interp-toolkit: error: ")


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (SafetensorError("invalid header"), "a file is damaged: invalid header"),
        (pickle.UnpicklingError("invalid load key"), "a file is damaged: invalid load key"),
        (zlib.error("Error -3"), "a file is damaged: Error -3"),
        (EOFError(), "a file is damaged: EOFError"),
        (
            ModuleNotFoundError("No module named 'plotly'", name="plotly.express"),
            "pip install -U 'interp-toolkit[views]'",
        ),
        (ModuleNotFoundError("No module named 'tiktoken'", name="tiktoken"), "pip install -U tiktoken"),
        (OSError(28, "No space left on device", "x.json"), "No space left on device: x.json"),
    ],
)
def test_errors_of_files_and_of_what_is_not_installed_are_one_line(capsys, monkeypatch, error, text):
    monkeypatch.setattr("interp_toolkit.shipped.find_stored", _raising(error))
    code, out, err = _run(capsys, "info", "x")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("interp-toolkit: error: ")
    assert text in err


@pytest.mark.parametrize("error", [ValueError("a"), TypeError("b"), ImportError("c", name="interp_toolkit.files")])
def test_a_fault_of_the_library_is_not_hidden(monkeypatch, error):
    monkeypatch.setattr("interp_toolkit.shipped.find_stored", _raising(error))
    with pytest.raises(type(error)):
        main(["info", "x"])


def _raising(error):
    def find(name):
        raise error

    return find


def test_train_writes_an_adapter_that_info_and_explain_take(capsys, tmp_path, checkpoints, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("INTERP_TOOLKIT_CACHE", str(tmp_path / "cache"))
    (tmp_path / "titles.txt").write_text("\n".join(f"Topic {i}" for i in range(20)))
    described = dict(
        model=str(checkpoints["llama"]),
        topics=dict(titles="titles.txt", site="blocks.2.hook_resid_post", val=4),
        adapter=dict(kind="scalar_affine", init_scale=2.0),
        training=dict(batch_size=4, max_steps=2),
        output="made",
    )
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(described))
    code, out, err = _run(capsys, "train", "run.yaml", "--data", str(tmp_path))
    assert (code, err) == (0, "")
    assert out.startswith("best: validation loss ")
    assert out.endswith(", in made/last\n")
    assert _run(capsys, "info", "./made/best")[0] == 0
    code, out, _ = _run(capsys, "explain", "Topic 3", "--model", str(checkpoints["llama"]), "--adapter", "made/best")
    assert code == 0
    assert out.count("\n") >= 2


def test_the_installed_command_is_quiet_and_helps(smollm):
    environment = {**os.environ, "COLUMNS": "80"}
    command = [sys.executable, "-m", "interp_toolkit"]
    result = subprocess.run([*command, "--help"], capture_output=True, text=True, env=environment, timeout=120)
    assert result.returncode == 0
    assert all(name in result.stdout for name in ("explain", "train", "info", "exit codes", "--print-completion"))
    # Without a network, whatever the environment says of one: a connection would end the process with code 7.
    closed = "import os, socket, sys; socket.socket.connect = lambda *a: os._exit(7); "
    closed += "from interp_toolkit.cli import main; sys.exit(main())"
    quiet = ("HF_HUB_DISABLE_PROGRESS_BARS", "TRANSFORMERS_VERBOSITY")
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", *quiet):
        environment.pop(name, None)
    result = subprocess.run(
        [sys.executable, "-c", closed, "explain", "Tell me about jazz.", "--csv"],
        capture_output=True,
        text=True,
        env=environment,
        timeout=300,
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith(
        "source,site,position,token,sample,description,log_prob,evidence,confidence,above_threshold,scale\n"
    )
    result = subprocess.run([*command, "--print-completion", "bash"], capture_output=True, text=True, env=environment)
    assert result.returncode == 0
    assert all(option in result.stdout for option in ("evaluate", "--any-layer", "compare"))
    result = subprocess.run([*command, "explain"], capture_output=True, text=True, env=environment, timeout=120)
    assert result.returncode == 2


def test_a_terminal_shows_what_is_waited_for(checkpoints, tmp_path):
    (tmp_path / "prompts.txt").write_text("foxes\n")
    command = [sys.executable, "-m", "interp_toolkit", "read", str(tmp_path / "prompts.txt"), "--layers", "1"]
    command += ["--model", str(checkpoints["llama"]), "--output", str(tmp_path / "read")]
    ours, theirs = pty.openpty()
    with os.fdopen(ours, "rb", buffering=0) as terminal:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=theirs, timeout=120)
        os.close(theirs)
        shown = terminal.read(4096).decode()
    assert done.returncode == 0
    assert shown.startswith(f"loading the model {checkpoints['llama']}\r\n")


def test_every_evaluation_is_there_and_has_a_row_in_the_docs():
    docs = (Path(__file__).parent.parent / "docs" / "evaluation.md").read_text()
    for name in EVALUATIONS:
        assert isinstance(find_evaluation(name), Evaluation)
        assert f"\n| `{name}` | " in docs


@pytest.mark.slow
def test_evaluate_prints_tables_and_writes_a_result(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("interp_toolkit.evaluation.context.Embedder", Letters)
    words = [a + b for a in "bcdfghklmnprstvw" for b in ("ear", "ine", "oat", "ump", "all", "eed", "ink", "ock")]
    titles = [f"{a} {b}" for a in words[:26] for b in words[40:64]]
    rows = [dict(title=title, split="val" if i < 24 else "train") for i, title in enumerate(titles)]
    (tmp_path / "topics").mkdir()
    with gzip.open(tmp_path / "topics" / "topics.jsonl.gz", "wt") as stream:
        stream.writelines(json.dumps(row) + "\n" for row in rows)
    command = ["evaluate", "selective_prediction", "--limit", "20", "--adapter", "smollm2_scalar_affine"]
    code, out, _ = _run(capsys, *command)
    assert code == 0
    assert "passed, shuffled" in out
    assert all(len(line) <= 80 for line in out.splitlines())
    result = json.loads(
        (tmp_path / "evaluations" / "selective_prediction-smollm2_scalar_affine-limit-20.json").read_text()
    )
    assert result["settings"]["n"] == result["threshold"]["n"] == 20
    assert _run(capsys, *command)[1] == out
    code, printed, _ = _run(capsys, *command, "--json")
    rows = json.loads(printed)
    assert (code, list(rows), list(map(len, rows.values()))) == (
        0,
        list(result["tables"]),
        list(map(len, result["tables"].values())),
    )
    assert rows["readings"][0] == pytest.approx(result["tables"]["readings"][0])
    code, printed, _ = _run(capsys, *command, "--csv")
    table = pd.read_csv(io.StringIO(printed))
    assert (code, table.columns[0], set(table["table"])) == (0, "table", set(result["tables"]))
    assert len(table) == sum(map(len, result["tables"].values()))
    code, _, err = _run(capsys, *command, "--data", "/nowhere")
    assert (code, err.count("\n")) == (2, 1)
    assert "expected a file of topic titles at /nowhere/topics/topics.jsonl.gz, and there is none" in err
