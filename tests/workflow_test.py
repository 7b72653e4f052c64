"""`chorus run` as its users run it: the rows, the log, crashes and resumption, and what replicas cost in memory."""
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import time

import pytest

from chorus_process import CHORUS, ROOT, STORIES, chorus, generate, gone_within, log_lines, other_lines, wait_for_engines

EXAMPLE = ROOT / "examples" / "stories"
ROWS = [json.loads(line) for line in (EXAMPLE / "data" / "dataset.jsonl").read_text().splitlines()]


class Stories:
    """The example in its own directory."""

    def __init__(self, root):
        self.root = root
        shutil.copytree(EXAMPLE, root, ignore=shutil.ignore_patterns("out"))
        self.whole = json.loads((root / "workflow.json").read_text())
        self.load, self.tell = (node["params"] for node in self.whole["nodes"])
        self.tell["model_name"] = STORIES
        self.tell["engine_options"].update(threads=1, kv_cache_memory="16MiB")
        self.file, self.output = root / "workflow.json", root / "out" / "tell_story.jsonl"

    def replicas(self, count):
        self.tell["engine_options"]["data_parallel_size"] = count
        return self

    def many(self, count, max_tokens):
        """A run long enough to be killed in the middle."""
        rows = [{**ROWS[number % len(ROWS)], "id": number, "hero": f"{ROWS[number % len(ROWS)]['hero']} {number}"} for number in range(count)]
        (self.root / "data" / "dataset.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        self.tell["generation_options"].update(max_tokens=max_tokens, ignore_eos=True)
        return self

    def save(self):
        self.file.write_text(json.dumps(self.whole))

    def run(self, status=0, **options):
        self.save()
        done = chorus("run", self.file, **options)
        assert done.returncode == status, done.stderr.decode()
        return done

    def start(self):
        self.save()
        return subprocess.Popen([CHORUS, "run", str(self.file)], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                env=dict(os.environ, CHORUS_LOG_LEVEL="info"))

    def rows(self):
        return [json.loads(line) for line in self.output.read_text(encoding="utf-8").splitlines()]

    def texts(self):
        return [row["tell_story"] for row in self.rows()]


@pytest.fixture
def stories(tmp_path):
    return Stories(tmp_path / "stories")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The example on one replica: its output and log."""
    stories = Stories(tmp_path_factory.mktemp("undisturbed") / "stories").replicas(1)
    done = stories.run()
    return stories, done


def messages(stderr):
    return [line.split(" ", 3)[3] for line in log_lines(stderr)]


# ---- the example ----

def test_rows_in_input_order_with_exactly_these_keys(undisturbed):
    stories, done = undisturbed
    assert done.returncode == 0 and not other_lines(done.stderr)
    rows = stories.rows()
    assert [row["id"] for row in rows] == [row["id"] for row in ROWS] and len(rows) == 33
    for row in rows:
        assert list(row) == ["id", "tell_story", "finish_reason", "usage", "error"]
        assert row["error"] is None and row["finish_reason"] in ("stop", "length") and len(row["tell_story"]) > 20
        assert list(row["usage"]) == ["prompt_tokens", "completion_tokens", "total_tokens"]
        assert 0 < row["usage"]["completion_tokens"] <= 128
        assert row["usage"]["prompt_tokens"] + row["usage"]["completion_tokens"] == row["usage"]["total_tokens"]
    report = json.loads((stories.root / "out" / "report.json").read_text())
    assert report["failed"] == 0 and report["nodes"][0]["rows"] == report["nodes"][0]["succeeded"] == 33
    assert sorted(os.listdir(stories.root / "out")) == ["report.json", "tell_story.jsonl"]
    assert sorted(os.listdir(stories.root)) == ["README.md", "data", "out", "prompts", "workflow.json"]


def test_the_texts_are_those_of_generate(undisturbed):
    prompts = [f"Once upon a time, there was a child named {row['hero']}. One day, {row['hero']} saw {row['thing']} {row['place']}." for row in ROWS]
    found = generate(STORIES, "--max-tokens", "128", "--temperature", "0.7", "--seed", "1", "--max-model-len", "512", "--dtype", "bfloat16",
                     "-dp", "3", rows=[{"prompt": prompt} for prompt in prompts])
    assert [line["outputs"][0]["text"] for line in found] == undisturbed[0].texts()
    assert [line["outputs"][0]["finish_reason"] for line in found] == [row["finish_reason"] for row in undisturbed[0].rows()]
    assert [len(line["prompt_token_ids"]) for line in found] == [row["usage"]["prompt_tokens"] for row in undisturbed[0].rows()]
    assert [len(line["outputs"][0]["token_ids"]) for line in found] == [row["usage"]["completion_tokens"] for row in undisturbed[0].rows()]


@pytest.mark.parametrize("count", [2, 4])
def test_replicas_change_nothing_in_the_files(stories, undisturbed, count):
    stories.replicas(count).run()
    assert stories.output.read_bytes() == undisturbed[0].output.read_bytes()
    assert (stories.root / "out" / "report.json").read_bytes() == (undisturbed[0].root / "out" / "report.json").read_bytes()


def test_log_lines_of_four_replicas(stories):
    said = messages(stories.replicas(4).run().stderr)
    assert said[0] == "Starting 4 data parallel workers"
    assert sorted(said[1:5]) == [f"Worker rank {rank} is ready" for rank in range(4)]
    assert [line for line in said if line.startswith("Assigned")] == [
        "Assigned 9 prompts to rank 0", "Assigned 8 prompts to rank 1", "Assigned 8 prompts to rank 2", "Assigned 8 prompts to rank 3"]
    assert sorted(line for line in said if line.startswith("Received")) == [f"Received results for batch 0 from rank {rank}" for rank in range(4)]
    assert len(said) == 13


def test_small_batches_change_nothing(stories, undisturbed):
    stories.tell["batch_size"] = 10
    said = messages(stories.run().stderr)
    assert stories.output.read_bytes() == undisturbed[0].output.read_bytes()
    assert [line for line in said if line.startswith("Assigned")] == [
        f"Assigned {count} prompts to rank {rank}" for counts in ((5, 5), (5, 5), (5, 5), (2, 1)) for rank, count in enumerate(counts)]
    received = [line for line in said if line.startswith("Received")]
    assert sorted(received) == [f"Received results for batch {batch} from rank {rank}" for batch in range(4) for rank in range(2)]


@pytest.mark.parametrize("variable", ["VLLM_LOGGING_LEVEL", "CHORUS_LOG_LEVEL"])
def test_the_log_level_of_the_environment(stories, variable):
    stories.save()
    env = {name: value for name, value in os.environ.items() if name not in ("VLLM_LOGGING_LEVEL", "CHORUS_LOG_LEVEL")}
    quiet = subprocess.run([CHORUS, "run", str(stories.file)], capture_output=True, env={**env, variable: "WARNING", "VLLM_USE_V1": "1"}, check=False)
    assert quiet.returncode == 0 and quiet.stderr == b""
    loud = subprocess.run([CHORUS, "run", str(stories.file)], capture_output=True, env={**env, variable: "INFO"}, check=False)
    assert loud.returncode == 0 and b" INFO Starting 2 data parallel workers\n" in loud.stderr


def test_the_other_engine_names(stories, undisturbed):
    stories.tell["inference_engine"] = "chorus_dp"
    stories.run()
    assert stories.output.read_bytes() == undisturbed[0].output.read_bytes()
    stories.tell["inference_engine"] = "chorus"
    stories.replicas(1).run()
    assert stories.output.read_bytes() == undisturbed[0].output.read_bytes()


def test_every_option_of_the_interface_example(stories, undisturbed):
    stories.tell["engine_options"] = {"data_parallel_size": 4, "gpus_per_dp_rank": 1, "dp_master_ip": "127.0.0.1", "dp_master_port": None,
                                      "enable_data_parallel": True, "disable_progress_bars": True, "max_model_len": 512, "dtype": "bfloat16"}
    stories.run()
    assert stories.output.read_bytes() == undisturbed[0].output.read_bytes()


def test_ranks_that_cannot_start_leave_one_worker(stories, undisturbed):
    """Two fifths of the free memory for each of four is too much, for one it is not."""
    available = int(re.search(r"MemAvailable:\s+(\d+) kB", pathlib.Path("/proc/meminfo").read_text()).group(1)) * 1024
    stories.replicas(4).tell["engine_options"]["kv_cache_memory"] = available * 2 // 5
    said = messages(stories.run().stderr)
    assert said[0].startswith("4 data parallel workers could not start (kv-cache-memory") and said[0].endswith("going on with one")
    assert said[1:4] == ["Starting 1 data parallel workers", "Worker rank 0 is ready", "Assigned 33 prompts to rank 0"]
    assert stories.output.read_bytes() == undisturbed[0].output.read_bytes()


# ---- inputs and prompts ----

def test_a_byte_order_mark_and_carriage_returns(stories, undisturbed):
    dataset = stories.root / "data" / "dataset.jsonl"
    dataset.write_bytes(b"\xef\xbb\xbf" + dataset.read_bytes().replace(b"\n", b"\r\n"))
    stories.run()
    assert stories.output.read_bytes() == undisturbed[0].output.read_bytes()


def test_text_templates(stories, undisturbed):
    prompts = stories.root / "prompts"
    (prompts / "tell_story.jinja").rename(prompts / "tell_story.txt")
    stories.run()
    assert stories.output.read_bytes() == undisturbed[0].output.read_bytes()


def test_json_array_input(stories, undisturbed):
    (stories.root / "data" / "dataset.json").write_text(json.dumps(ROWS, indent=1))
    stories.load["input_data_path"] = "dataset.json"
    stories.run()
    assert stories.output.read_bytes() == undisturbed[0].output.read_bytes()


def test_csv_input(stories, undisturbed):
    cells = [list(ROWS[0])] + [list(row.values()) for row in ROWS]
    (stories.root / "data" / "dataset.csv").write_text("".join(",".join(f'"{cell}"' for cell in row) + "\r\n" for row in cells))
    stories.load["input_data_path"] = "dataset.csv"
    stories.run()
    assert stories.output.read_bytes() == undisturbed[0].output.read_bytes()


def test_chat_prompts(stories, tmp_path):
    model = tmp_path / "chatty"
    shutil.copytree(STORIES, model)
    (model / "chat_template.jinja").write_text("{{ bos_token }}{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}")
    (stories.root / "prompts" / "tell_story.jinja").unlink()
    chat = [{"role": "system", "content": "Tell short stories."}, {"role": "user", "content": "Of {{ hero }} {{ place }}."}]
    (stories.root / "prompts" / "tell_story.json").write_text(json.dumps(chat))
    stories.tell["model_name"] = str(model)
    stories.run()
    rows = [{"messages": [chat[0], {"role": "user", "content": f"Of {row['hero']} {row['place']}."}]} for row in ROWS]
    found = generate(model, "--max-tokens", "128", "--temperature", "0.7", "--seed", "1", rows=rows)
    assert [line["outputs"][0]["text"] for line in found] == stories.texts()
    assert found[0]["prompt"].startswith("<s>[system] Tell short stories.\n[user] Of Lily") and found[0]["prompt_token_ids"].count(1) == 1


# ---- crashes ----

def wait_for_line(process, wanted):
    """The log up to and with a line that has `wanted` in it."""
    seen = b""
    for line in process.stderr:
        seen += line
        if wanted in line:
            return seen
    raise AssertionError(f"no {wanted} in {seen.decode()}")


@pytest.fixture(scope="module")
def long_run(tmp_path_factory):
    stories = Stories(tmp_path_factory.mktemp("long") / "stories").many(400, 100).replicas(2)
    stories.tell["batch_size"] = 50
    stories.run()
    assert len(stories.rows()) == 400
    return stories


def like(long_run, root):
    stories = Stories(root)
    shutil.copytree(long_run.root / "data", root / "data", dirs_exist_ok=True)
    stories.whole = json.loads(long_run.file.read_text())
    return stories


@pytest.mark.parametrize("victim", [0, 1])
def test_an_engine_is_killed(long_run, tmp_path, victim):
    stories = like(long_run, tmp_path / "killed")
    process = stories.start()
    engines = wait_for_engines(process, 2)
    seen = wait_for_line(process, b"Received results for batch 1 from rank 1")
    os.kill(engines[victim], signal.SIGKILL)
    errors = seen + process.communicate(timeout=120)[1]
    assert process.returncode == 0, errors.decode()
    assert f"Worker rank {victim} (pid {engines[victim]}) was killed by SIGKILL" in errors.decode()
    assert stories.output.read_bytes() == long_run.output.read_bytes()


def test_both_engines_are_killed_again_and_again(long_run, tmp_path):
    """Each engine dies once at a different place; the rows do not show it."""
    stories = like(long_run, tmp_path / "killed")
    process = stories.start()
    engines = wait_for_engines(process, 2)
    seen = wait_for_line(process, b"Received results for batch 1 from rank 1")
    os.kill(engines[0], signal.SIGKILL)
    seen += wait_for_line(process, b"Received results for batch 4 from rank")
    os.kill(engines[1], signal.SIGKILL)
    errors = seen + process.communicate(timeout=120)[1]
    assert process.returncode == 0, errors.decode()
    assert errors.count(b"was killed by SIGKILL") == 2
    assert stories.output.read_bytes() == long_run.output.read_bytes()


def test_the_parent_is_killed_and_the_run_goes_on(long_run, tmp_path):
    stories = like(long_run, tmp_path / "killed")
    process = stories.start()
    engines = wait_for_engines(process, 2)
    wait_for_line(process, b"Received results for batch 3 from rank 1")
    wait_for_line(process, b"Received results for batch 4 from rank 1")  # so batch 3 is on disk
    process.kill()
    process.wait()
    assert gone_within(engines, 1.0), "an engine outlived its parent"
    assert not stories.output.exists() and not (stories.root / "out" / "report.json").exists()
    again = stories.run()
    resumed = [int(found.group(1)) for found in map(re.compile(r"going on after (\d+) of 400 rows").search, messages(again.stderr)) if found]
    assert resumed and 200 <= resumed[0] < 400, again.stderr.decode()
    assert stories.output.read_bytes() == long_run.output.read_bytes()
    assert json.loads((stories.root / "out" / "report.json").read_text())["nodes"][0]["resumed"] == resumed[0]
    assert sorted(os.listdir(stories.root / "out")) == ["report.json", "tell_story.jsonl"]


def test_an_interrupted_run_goes_on(long_run, tmp_path):
    stories = like(long_run, tmp_path / "interrupted")
    process = stories.start()
    engines = wait_for_engines(process, 2)
    seen = wait_for_line(process, b"Received results for batch 2 from rank 1")
    process.send_signal(signal.SIGINT)
    errors = seen + process.communicate(timeout=60)[1]
    assert process.returncode == 130, errors.decode()
    assert len(other_lines(errors)) == 1 and "interrupted" in other_lines(errors)[0], errors.decode()
    assert gone_within(engines, 1.0) and not stories.output.exists()
    again = stories.run()
    assert any("going on after" in line for line in messages(again.stderr))
    assert stories.output.read_bytes() == long_run.output.read_bytes()


def test_a_changed_workflow_does_not_go_on(long_run, tmp_path):
    stories = like(long_run, tmp_path / "changed")
    process = stories.start()
    wait_for_line(process, b"Received results for batch 2 from rank 1")
    process.kill()
    process.wait()
    (stories.root / "prompts" / "tell_story.jinja").write_text("{{ hero }}")
    stories.whole["nodes"][1]["params"]["generation_options"]["max_tokens"] = 4
    again = stories.run()
    assert any("starting afresh" in line for line in messages(again.stderr))
    assert {row["usage"]["completion_tokens"] for row in stories.rows()} == {4}


def test_two_runs_in_one_output_dir(long_run, tmp_path):
    stories = like(long_run, tmp_path / "twice")
    process = stories.start()
    wait_for_line(process, b"Assigned")
    second = chorus("run", stories.file)
    assert second.returncode in (1, 2) and len(other_lines(second.stderr)) == 1, second
    assert "another run is writing here" in other_lines(second.stderr)[0] and not messages(second.stderr)
    errors = process.communicate(timeout=120)[1]
    assert process.returncode == 0, errors.decode()
    assert stories.output.read_bytes() == long_run.output.read_bytes()


def test_a_batch_that_takes_too_long(stories):
    stories.many(300, 300)
    stories.tell.update(batch_size=300, batch_timeout=0.3)
    done = stories.run(status=3)
    assert not other_lines(done.stderr)
    rows = stories.rows()
    late = [row for row in rows if row["error"]]
    assert [row["id"] for row in rows] == list(range(300)) and late
    for row in late:
        assert row["error"] == "batch_timeout: not done within 0.3 s" and row["tell_story"] is None and row["finish_reason"] is None
    assert json.loads((stories.root / "out" / "report.json").read_text())["failed"] == len(late)


def test_rows_done_before_the_timeout_are_kept(stories):
    """Four rows per step: the first are done long before, the last of 600 thousand tokens long after the timeout."""
    stories.many(2000, 300)
    stories.tell["engine_options"]["max_num_seqs"] = 4
    stories.tell.update(batch_size=2000, batch_timeout=3)
    stories.run(status=3)
    kept = [row for row in stories.rows() if row["error"] is None]
    assert 0 < len(kept) < 2000
    # They are what they would have been without the others.
    ids = {row["id"] for row in kept}
    dataset = stories.root / "data" / "dataset.jsonl"
    rows = [json.loads(line) for line in dataset.read_text().splitlines()]
    dataset.write_text("".join(json.dumps(row) + "\n" for row in rows if row["id"] in ids))
    stories.tell.update(batch_timeout=600)
    stories.run()
    assert stories.rows() == kept


# ---- memory ----

def pss_bytes(pid):
    for line in pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="utf-8").splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no Pss")


HIDDEN, LAYERS, VOCABULARY, INTERMEDIATE = 1024, 8, 32000, 2816
# q, k, v, o; gate, up, down; embedding and head. The norms are too small to count.
PARAMETERS = 2 * VOCABULARY * HIDDEN + LAYERS * (4 * HIDDEN * HIDDEN + 3 * HIDDEN * INTERMEDIATE)
WEIGHT_BYTES = 2 * PARAMETERS


def stopped(pid):
    """Waits until the process stands still."""
    end = time.monotonic() + 5
    while time.monotonic() < end:
        status = pathlib.Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
        if "\nState:\tT" in status:
            return
        if "\nState:\tZ" in status:
            break
    raise ProcessLookupError(pid)


def sample_pss(processes):
    """The sum while all stand still: otherwise a page that changes hands in between is counted twice. 0 where one is gone."""
    try:
        for pid in processes:
            os.kill(pid, signal.SIGSTOP)
        for pid in processes:
            stopped(pid)
        return sum(pss_bytes(pid) for pid in processes)
    except (OSError, AssertionError):
        return 0
    finally:
        for pid in processes:
            try:
                os.kill(pid, signal.SIGCONT)
            except OSError:
                pass


def measured_pss(model, source, output, replicas):
    """The most that parent and engines have together while they generate."""
    process = subprocess.Popen([CHORUS, "generate", model, "-dp", str(replicas), "--load-format", "dummy", "--dtype", "bfloat16", "--threads", "1",
                                "--max-num-seqs", "2", "--max-num-batched-tokens", "64", "--max-model-len", "64", "--kv-cache-memory", "8MiB",
                                "--input", source, "--output", output], stderr=subprocess.PIPE)
    try:
        engines = wait_for_engines(process, replicas)
        seen = b""
        while seen.count(b"is ready") < replicas:
            line = process.stderr.readline()
            assert line, seen.decode()
            seen += line
        most = 0
        while process.poll() is None:
            most = max(most, sample_pss([process.pid, *engines]))
            time.sleep(0.2)
        assert process.returncode == 0, process.stderr.read().decode()
        return most
    finally:
        process.kill()
        process.wait()


def test_replicas_share_one_copy_of_the_weights(tmp_path):
    model = tmp_path / "dummy"
    model.mkdir()
    (model / "config.json").write_text(json.dumps({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": HIDDEN, "intermediate_size": INTERMEDIATE,
        "num_hidden_layers": LAYERS, "num_attention_heads": 16, "num_key_value_heads": 16, "vocab_size": VOCABULARY,
        "max_position_embeddings": 512, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "hidden_act": "silu", "tie_word_embeddings": False,
        "bos_token_id": 1, "eos_token_id": 2, "torch_dtype": "bfloat16"}))
    source = tmp_path / "in.jsonl"
    source.write_text("".join(json.dumps({"prompt_token_ids": [1, 5 + row], "max_tokens": 8, "ignore_eos": True}) + "\n" for row in range(16)))
    one = measured_pss(model, source, tmp_path / "one.jsonl", 1)
    four = measured_pss(model, source, tmp_path / "four.jsonl", 4)
    print(f"weights {WEIGHT_BYTES >> 20} MiB, Pss of one replica {one >> 20} MiB, of four {four >> 20} MiB")
    assert (tmp_path / "four.jsonl").read_bytes() == (tmp_path / "one.jsonl").read_bytes()
    # What an engine has of its own: the cache, buffers and its heap. A second copy of the weights would be many times that.
    own = 16 << 20
    assert WEIGHT_BYTES * 0.9 <= one <= WEIGHT_BYTES * 1.1 + 2 * own
    assert four <= WEIGHT_BYTES * 1.1 + 5 * own
    assert four - one <= 3 * own
