#!/usr/bin/env python3
"""The program as users and scripts use it: what it prints, where, and its exit status.

    tests/cli.py BUILD [unittest options]

Models are made from the tiny checkpoints of shared/data/golden (environment QUIP_SHARED, else
../shared). Without them, tests that need a model are skipped. With CI=true they fail.
"""
import array
import json
import math
import os
import pathlib
import pty
import re
import resource
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest

ROOT = pathlib.Path(__file__).resolve().parent.parent
SHARED = pathlib.Path(os.environ.get("QUIP_SHARED", ROOT.parent / "shared"))
GOLDEN = SHARED / "data/golden"
COMMANDS = ["run", "chat", "render", "tokenize", "logits", "embed", "inspect", "convert", "bundle", "verify", "eval", "bench", "doctor"]
QUIP = None  # path of the program
WORK = None  # a folder of this run


def quip(*args, stdin="", check=None, env=None):
    """Run the program. `check` is the expected exit status."""
    if isinstance(stdin, str):
        stdin = stdin.encode()
    environment = {**os.environ, "XDG_CACHE_HOME": str(WORK / "cache"), **(env or {})}
    done = subprocess.run(
        [QUIP, *map(str, args)], input=stdin, capture_output=True, env=environment, timeout=120
    )
    if check is not None and done.returncode != check:
        raise AssertionError(f"quip {args}: exit status {done.returncode}, expected {check}: {done.stderr}")
    return done


def terminal_env():
    """The environment of a program that edits lines."""
    known = WORK / "known-leaks"
    known.write_text("leak:libedit\n")  # el_set(EL_ADDFN) copies two names and never frees them
    lsan = f"fast_unwind_on_malloc=0:print_suppressions=0:suppressions={known}"
    return {**os.environ, "TERM": "xterm", "LSAN_OPTIONS": lsan}


def at_terminal(*args, typed, env, cwd):
    """Run the program in a terminal; type when it has printed its prompt."""
    mine, theirs = pty.openpty()
    with subprocess.Popen([QUIP, *map(str, args)], stdin=theirs, stdout=theirs, stderr=theirs, cwd=cwd,
                          env={**terminal_env(), **env}, start_new_session=True) as p:
        os.close(theirs)
        seen = b""
        while b"> " not in seen and select.select([mine], [], [], 20)[0]:
            seen += os.read(mine, 4096)
        time.sleep(0.2)  # the editor configures the terminal after it has printed its prompt
        os.write(mine, typed)
        try:
            while os.read(mine, 4096):
                pass
        except OSError:  # Linux: the other side has closed
            pass
    os.close(mine)
    return p.returncode


def floats(path):
    return array.array("f", path.read_bytes())


class Usage(unittest.TestCase):
    def test_help(self):
        text = quip("--help", check=0).stdout.decode()
        for command in COMMANDS:
            self.assertIn(command, text)
            help_text = quip(command, "--help", check=0).stdout.decode()
            self.assertIn("Options:", help_text)
            self.assertIn(f"  quip {command} ", help_text, "an example")
            self.assertEqual(quip("help", command, check=0).stdout.decode(), help_text)
        self.assertRegex(quip("--version", check=0).stdout.decode(), r"^quip \d+\.\d+\.\d+\n$")

    def test_wrong_usage_is_2_and_one_line(self):
        for args in [
            ["run"],
            ["run", "model", "a", "b"],
            ["run", "model", "a", "--no-such"],
            ["run", "model", "a", "--top-k"],
            ["run", "model", "a", "--top-k", "-1"],
            ["run", "model", "a", "--top-k", "4x"],
            ["run", "model", "a", "--temperature", "nan"],
            ["run", "model", "a", "--seed", "-1"],
            ["run", "model", "a", "--raw=1"],
            ["logits", "model", "--out", "x"],
            ["logits", "model", "--ids", "1"],
            ["inspect", "file", "--tensor", "x"],
            ["convert", "in", "out", "--weights", "int3"],
            ["convert", "in", "out", "--attention-bits", "5"],
            ["convert", "in", "out", "--backend", "tpu"],
            ["convert", "in", "out", "--text", "t.txt"],
            ["convert", "in", "out", "--fp16-scale", "0.5"],
            ["convert", "in", "out", "--adapter-of", "model", "--weights", "int4"],
            ["eval", "model"],
            ["bundle", "model"],
        ]:
            done = quip(*args, check=2)
            self.assertEqual(done.stdout, b"", args)
            self.assertEqual(done.stderr.count(b"\n"), 1, done.stderr)
        self.assertEqual(quip(check=2).stdout, b"")
        for args in [["no-such-command"], ["help", "no-such-command"]]:
            self.assertIn(b"unknown command no-such-command; quip --help lists", quip(*args, check=2).stderr)

    def test_lines_of_the_help_fit(self):
        for command in COMMANDS:
            for line in quip(command, "--help", check=0).stdout.decode().splitlines():
                self.assertLessEqual(len(line), 100, line)

    def test_unknown_options_are_guessed(self):
        for word, guess in {
            "--temp": "; perhaps --temperature;",
            "--top_k": "; perhaps --top-k;",
            "--max_output=3": "; perhaps --max-output-tokens;",
            "-seed": "; perhaps --seed;",
            "-5 + 3": "; a text that begins so comes after --;",
            "-x": "; a text that begins so comes after --;",
            "--nonsense": "--nonsense;",
        }.items():
            said = quip("run", "model", "x", word, check=2).stderr.decode()
            self.assertIn(f"unknown option {word}", said)
            self.assertIn(guess, said)

    def test_failure_is_1_and_names_the_file(self):
        (WORK / "junk").write_bytes(b"junk" * 100)
        for name in ["absent", "junk"]:
            path = WORK / name
            for args in [
                ["run", path, "x"],
                ["chat", path],
                ["tokenize", path, "x"],
                ["logits", path, "--ids", "1", "--out", WORK / "l"],
                ["inspect", path],
                ["convert", path, WORK / "out"],
                ["eval", path, "--text", __file__],
                ["bench", path],
            ]:
                done = quip(*args, check=1)
                self.assertEqual(done.stdout, b"", args)
                self.assertIn(name.encode(), done.stderr, args)
        self.assertFalse((WORK / "out").exists())


def need(path):
    if not path.exists():
        if os.environ.get("CI") == "true":
            raise AssertionError(f"{path} is missing")
        raise unittest.SkipTest(f"skipped: {path} is missing")


class WithModel(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        need(GOLDEN)
        cls.checkpoint = GOLDEN / "gemma3"
        cls.model = WORK / "gemma3.bin"
        quip("convert", cls.checkpoint, cls.model, "--weights", "f32", check=0)

    def test_convert(self):
        for weights in ["int8", "int4", "mixed", "f32"]:
            out = WORK / f"{weights}.bin"
            done = quip("convert", GOLDEN / "smollm2", out, "--weights", weights, check=0)
            self.assertEqual(done.stdout, b"")
            info = json.loads(quip("inspect", out, "--json", check=0).stdout)
            self.assertEqual(info["weights"], weights)
            self.assertEqual(info["architecture"], "llama")
            self.assertEqual(info["problem"] if "problem" in info else None, None)
        quip("convert", GOLDEN / "smollm2", WORK / "q.bin", "--quiet", check=0)
        self.assertEqual([p for p in WORK.iterdir() if "tmp" in p.name or "part" in p.name], [])

    def test_convert_json(self):
        out = WORK / "json.bin"
        lines = quip("convert", GOLDEN / "smollm2", out, "--json", check=0).stdout.splitlines()
        events = [json.loads(line) for line in lines]
        self.assertEqual(events[-1]["event"], "result")
        self.assertEqual(events[-1]["bytes"], out.stat().st_size)
        last = events[-2]
        self.assertEqual((last["event"], last["done"]), ("progress", last["total"]))
        done = quip("convert", WORK / "absent", out, "--json", check=1)
        event = json.loads(done.stdout)
        self.assertEqual((event["event"], event["status"]), ("error", "io"))
        self.assertIn("absent", event["message"])

    def test_convert_with_closed_output(self):
        """If the reader of the progress closes its end, no file is left."""
        command = [QUIP, "convert", GOLDEN / "smollm2", WORK / "unread.bin", "--json"]
        reader, writer = os.pipe()
        os.close(reader)
        done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE)
        os.close(writer)
        self.assertIn(done.returncode, [130, -signal.SIGPIPE])
        self.assertEqual([p for p in WORK.iterdir() if "unread" in p.name], [])

    def test_convert_never_overwrites_its_input(self):
        folder = WORK / "kept"
        shutil.copytree(GOLDEN / "smollm2", folder)
        weights = next(folder.glob("*.safetensors"))
        before = weights.read_bytes()
        self.assertIn(b"checkpoint", quip("convert", folder, weights, check=2).stderr)
        self.assertEqual(weights.read_bytes(), before)
        model = self.model.read_bytes()
        for args in [["bundle", self.model], ["convert", folder, "--adapter-of", self.model]]:
            self.assertIn(b"another file", quip(*args, self.model, check=2).stderr)
        self.assertEqual(self.model.read_bytes(), model)

    def test_kinds_of_folders_are_distinguished(self):
        self.assertIn(b"quip convert", quip("run", self.checkpoint, "x", check=1).stderr)
        folder = WORK / "adapter"
        folder.mkdir()
        (folder / "adapter_config.json").write_text("{}")
        self.assertIn(b"--merge-adapter", quip("convert", folder, WORK / "a.bin", check=2).stderr)

    def test_names_are_no_escape_sequences(self):
        path, evil = WORK / "evil.safetensors", "a\x1b[2J\x9b2Jb"
        header = json.dumps({evil: {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
        path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
        shown = quip("inspect", path, check=0).stdout.decode()
        self.assertIn("a?[2J??2Jb", shown)
        error = quip("inspect", path, "--tensor", evil, "--out", path, check=1).stderr.decode()
        self.assertIn("is the file that is read", error)
        error = quip("inspect", path, "--tensor", evil + "c", "--out", "-", check=1).stderr.decode()
        self.assertIn("a?[2J??2Jbc", error)

    def test_bundle(self):
        task, entries = WORK / "gemma3.task", WORK / "entries"
        self.assertIn(b"gemma3.task: ", quip("bundle", self.model, task, check=0).stderr)
        quip("bundle", task, "--extract", entries, check=0)
        self.assertEqual((entries / "TF_LITE_PREFILL_DECODE").read_bytes(), self.model.read_bytes())

    def test_verify(self):
        text = WORK / "verify.txt"
        text.write_text("The quick brown fox jumps over the lazy dog. " * 4)
        same = json.loads(quip("verify", self.checkpoint, self.model, "--json", check=0).stdout)
        self.assertEqual((same["relative"], max(t["max"] for t in same["tensors"])), (0, 0))
        out = WORK / "verified.bin"
        quip("convert", self.checkpoint, out, "--weights", "int8", "--verify", "--text", text, check=0)
        for source in [self.checkpoint, self.model]:
            report = json.loads(quip("verify", source, out, "--text", text, "--json", check=0).stdout)
            self.assertGreater(report["relative"], 1e-4)
            self.assertLess(report["relative"], 1e-2)
            self.assertGreater(report["text"]["tokens"], 10)
            self.assertLess(report["text"]["mean_kl"], 0.05)
        info = json.loads(quip("inspect", out, "--json", check=0).stdout)
        stored = [m["value"] for m in info["metadata"] if m["name"] == "quip.verify"][0]
        report_in_file = dict(line.split(" ") for line in stored.splitlines())
        self.assertEqual(int(report_in_file["tokens"]), report["text"]["tokens"])
        self.assertAlmostEqual(float(report_in_file["relative_error"]), report["relative"], places=6)
        self.assertIn("worst_tensor", quip("inspect", out, check=0).stdout.decode())
        lines = quip("verify", self.model, out, "--text", text, check=0).stdout.decode().splitlines()
        n_differ, n_tensors = map(int, re.search(r"; (\d+) of (\d+) tensors differ", lines[0]).groups())
        self.assertEqual((n_tensors, n_differ > 5), (len(report["tensors"]), True))
        self.assertRegex(lines[1], "^text: KL divergence .*same most likely token")
        self.assertEqual((len(lines), lines[-1].split()[0]), (10, str(n_differ - 5)))
        relative = [float(line.split()[-2]) for line in lines[4:9]]
        self.assertEqual(relative, sorted((float(f"{t['relative']:.2e}") for t in report["tensors"]), reverse=True)[:5])
        lines = quip("verify", self.model, out, "-v", check=0).stdout.decode().splitlines()
        self.assertEqual(len(lines), 1 + 2 + n_tensors)
        lines = quip("verify", self.model, self.model, check=0).stdout.decode().splitlines()
        self.assertRegex("\n".join(lines), r"^all matrices: relative error 0.000e\+00; 0 of \d+ tensors differ$")
        # another layout with other names, and another model
        gpu = WORK / "gpu.bin"
        quip("convert", out, gpu, "--backend", "gpu", check=0)
        same = json.loads(quip("verify", out, gpu, "--json", check=0).stdout)
        self.assertEqual(same["relative"], 0)
        quip("verify", GOLDEN / "smollm2", out, check=1)
        quip("verify", out, self.checkpoint, check=1)
        quip("convert", GOLDEN / "smollm2", WORK / "none.bin", "--verify", "--text", WORK / "absent", check=1)
        self.assertEqual([p for p in WORK.iterdir() if "none" in p.name or "reference" in p.name], [])

    def test_inspect(self):
        text = quip("inspect", self.model, check=0).stdout.decode()
        for word in ["tflite", "gemma3", "memory", "final_ln.scale", "spm_vocab_model"]:
            self.assertIn(word, text)
        info = json.loads(quip("inspect", self.model, "--json", "-c", "64", check=0).stdout)
        self.assertEqual(info["plan"]["n_context"], 64)
        self.assertEqual((info["n_layers"], info["d_model"]), (7, 64))
        source = json.loads(
            quip("inspect", self.checkpoint / "model.safetensors", "--json", check=0).stdout
        )
        self.assertEqual(source["kind"], "safetensors")
        # a float tensor is unchanged, an int8 one is within half a step
        theirs, ours = "model.layers.0.self_attn.q_proj.weight", "params.lm.transformer.x_layers_0.self_attention.q.w"
        quip("inspect", self.checkpoint / "model.safetensors", "--tensor", theirs, "-o", WORK / "a", check=0)
        quip("inspect", self.model, "--tensor", ours, "-o", WORK / "b", check=0)
        self.assertEqual((WORK / "a").read_bytes(), (WORK / "b").read_bytes())
        quip("convert", self.checkpoint, WORK / "i8.bin", check=0)
        quip("inspect", WORK / "i8.bin", "--tensor", ours, "-o", WORK / "c", check=0)
        exact, rounded = floats(WORK / "a"), floats(WORK / "c")
        for row in range(0, len(exact), 64):
            step = max(map(abs, exact[row : row + 64])) / 127
            for x, y in zip(exact[row : row + 64], rounded[row : row + 64]):
                self.assertLessEqual(abs(x - y), step * 0.501)
        quip("inspect", self.model, "--tensor", "absent", "-o", WORK / "d", check=1)
        sample = ROOT / "tests/fuzz/corpus/fuzz_pytorch/ordered"
        pickled = json.loads(quip("inspect", sample, "--json", check=0).stdout)
        self.assertEqual((pickled["kind"], len(pickled["tensors"])), ("pytorch", 4))

    def test_tokenize(self):
        cases = json.loads((self.checkpoint / "tokenizer_cases.json").read_text())["cases"]
        lines = "".join(json.dumps({"text": c["text"]}) + "\n" for c in cases)
        for source in [self.model, self.checkpoint / "tokenizer.model", self.checkpoint / "tokenizer.json"]:
            out = quip("tokenize", source, "--jsonl", stdin=lines, check=0).stdout
            found = [json.loads(line)["ids"] for line in out.split(b"\n")[:-1]]
            self.assertEqual(found, [c["ids"] for c in cases], source)
            out = quip("tokenize", source, "--jsonl", "--detokenize", stdin=out, check=0).stdout
            back = [json.loads(line)["text"] for line in out.split(b"\n")[:-1]]
            # SentencePiece spells a space as U+2581 and cannot distinguish them
            self.assertEqual(back, [c["text"].replace("\u2581", " ") for c in cases])
        ids = quip("tokenize", self.model, "a light", check=0).stdout
        self.assertEqual(ids, quip("tokenize", self.model, "-", stdin="a light", check=0).stdout)
        self.assertEqual(ids, quip("tokenize", self.model, stdin="a light", check=0).stdout)
        back = quip("tokenize", self.model, "--detokenize", ids.decode(), check=0).stdout
        self.assertEqual(back, b"a light\n")

    def test_tokenize_lines(self):
        # a NUL is a character like any other; a line with an error does not stop the others
        lines = ['{"text": "a\\u0000b\\\\u0000"}', "nonsense", '{"text": ""}', '{"text": 7}', '{"text": "a"}']
        done = quip("tokenize", self.model, "--jsonl", stdin="\n".join(lines), check=1)
        found = [json.loads(line) for line in done.stdout.split(b"\n")[:-1]]
        self.assertEqual([list(f) for f in found], [["ids"], ["error"], ["ids"], ["error"], ["ids"]])
        self.assertEqual(found[2]["ids"], [])
        line = json.dumps(found[0])
        back = json.loads(quip("tokenize", self.model, "--jsonl", "-d", stdin=line, check=0).stdout)
        self.assertEqual(back["text"], "a\0b\\u0000")
        quip("tokenize", self.model, "--detokenize", "1 2 x", check=1)

    def test_logits(self):
        ids = json.loads((self.checkpoint / "ids.json").read_text())["main"]
        (WORK / "ids").write_text(json.dumps(ids))
        quip("logits", self.model, "--ids-file", WORK / "ids", "--all", "-o", WORK / "all", check=0)
        quip("logits", self.model, "--ids", ",".join(map(str, ids)), "-o", WORK / "last", check=0)
        found, expected = floats(WORK / "all"), floats(self.checkpoint / "logits.f32")
        self.assertEqual(len(found), len(expected))
        self.assertLess(max(abs(a - b) for a, b in zip(found, expected)), 1e-3)
        self.assertEqual(floats(WORK / "last"), found[-512:])
        quip("logits", self.model, "--ids", "1,99999999", "-o", WORK / "last", check=2)
        quip("logits", self.model, "--ids", "1,x", "-o", WORK / "last", check=1)

    def test_eval_agrees_with_logits(self):
        text = "It was the best of light, it was the worst of light. " * 6
        (WORK / "text").write_text(text)
        ids = [int(i) for i in quip("tokenize", self.model, "-", stdin=text).stdout.split()]
        n_window, nll, n_scored = 32, 0.0, 0
        for w in range(2):
            window = [2] + ids[w * 31 : w * 31 + 31]  # <bos> first
            quip("logits", self.model, "--ids", ",".join(map(str, window)), "--all", "-o", WORK / "e", check=0)
            rows = floats(WORK / "e")
            for i, target in enumerate(window[1:]):
                row = rows[i * 512 : i * 512 + 512]
                nll += math.log(sum(math.exp(x) for x in row)) - row[target]
                n_scored += 1
        options = ["--text", WORK / "text", "--window", n_window, "--windows", 2]
        found = json.loads(quip("eval", self.model, *options, "--json", check=0).stdout)
        self.assertEqual(found["tokens"], n_scored)
        self.assertAlmostEqual(found["mean_nll"], nll / n_scored, 5)
        self.assertAlmostEqual(found["perplexity"], math.exp(nll / n_scored), 2)
        self.assertIn(b"perplexity", quip("eval", self.model, *options, check=0).stdout)
        quip("eval", self.model, "--text", WORK / "text", "--window", 512, check=1)

    def test_run(self):
        args = ["run", self.model, "What is light?", "--greedy", "--max-output-tokens", 20]
        done = quip(*args, check=0)
        self.assertEqual(done.stderr, b"")
        self.assertEqual(done.stdout[-1:], b"\n")
        done.stdout.decode()  # whole characters
        self.assertEqual(quip(*args, "--threads", 1, check=0).stdout, done.stdout)
        self.assertEqual(quip("run", self.model, "-", "-n20", "--greedy", stdin="What is light?").stdout, done.stdout)
        stats = quip(*args, "--stats", check=0).stderr
        self.assertIn(b"tokens/s", stats)
        self.assertIn(b"backend: cpu, because ", stats)
        answer = json.loads(quip(*args, "--json", check=0).stdout)
        self.assertEqual(answer["text"].rstrip("\n"), done.stdout.decode().rstrip("\n"))
        self.assertEqual((answer["output_tokens"], answer["finish_reason"]), (20, "length"))
        self.assertEqual(answer["backend"], "cpu")

    def test_doctor(self):
        none = {"QUIP_GPU_LIBRARY": "/no-such-file"}
        found = json.loads(quip("doctor", "--json", env=none, check=0).stdout)
        self.assertGreater(found["cpu"]["threads"], 0)
        cpuinfo = pathlib.Path("/proc/cpuinfo")
        flags = cpuinfo.read_text() if cpuinfo.exists() else ""
        if " avx512_vnni" in flags:  # with or without avx_vnni
            self.assertIn(found["cpu"]["instructions"], ("avx512vnni", "zen4", "intel", "amx"))
        scalar = json.loads(quip("doctor", "--json", env={**none, "QUIP_CPU": "scalar"}, check=0).stdout)
        self.assertEqual(scalar["cpu"]["instructions"], "scalar")
        self.assertTrue(found["backends"]["cpu"]["works"])
        self.assertFalse(found["backends"]["gpu"]["works"])
        self.assertNotIn("model", found)
        if "gpu" in found:  # the backend is built
            self.assertEqual([p["name"] for p in found["gpu"]["looked_at"]], ["/no-such-file"])
            self.assertEqual((found["gpu"]["library"], found["gpu"]["adapters"]), ("", []))
        done = quip("doctor", self.model, env=none, check=0)
        self.assertIn(b"instructions", done.stdout)
        self.assertIn(b"auto          cpu: ", done.stdout)
        model = json.loads(quip("doctor", self.model, "--json", env=none, check=0).stdout)["model"]
        self.assertEqual((model["auto"]["backend"], model["auto"]["problem"]), ("cpu", ""))
        self.assertGreater(len(model["auto"]["reason"]), 10)
        self.assertIn(b"no-such-file", quip("doctor", WORK / "no-such-file", check=1).stdout)

    def test_run_draws(self):
        args = ["run", self.model, "x", "-n", 20, "--temperature", 2, "--json"]
        first = json.loads(quip(*args, check=0).stdout)
        self.assertEqual(first["text"], json.loads(quip(*args, check=0).stdout)["text"])
        again = json.loads(quip(*args, "--seed", first["seed"], check=0).stdout)
        self.assertEqual(first["text"], again["text"])
        other = json.loads(quip(*args, "--seed", 1, "--top-k", 50, "--top-p", 0.9, check=0).stdout)
        self.assertNotEqual(first["text"], other["text"])

    def test_draft(self):
        for how in [["--greedy"], ["--temperature", 1, "--seed", 5]]:
            args = ["run", self.model, "What is light?", "-n", 20, "--json", *how]
            plain = json.loads(quip(*args, check=0).stdout)
            answer = json.loads(quip(*args, "--draft", self.model, check=0).stdout)
            self.assertEqual(answer["text"], plain["text"])
            self.assertTrue(0 <= answer["draft_tokens_right"] <= answer["draft_tokens"], answer)
        self.assertIn(b"draft tokens: ", quip(*args[:5], "--greedy", "--stats", "--draft", self.model, check=0).stderr)
        chat = quip("chat", self.model, "--draft", self.model, "-n", 5, stdin="x\n/set draft y\n", check=0)
        self.assertIn(b"draft cannot change during a conversation", chat.stderr)
        vain = quip("run", self.model, "x", "-n", 2, "--draft", self.model, "--no-speculation", check=0)
        self.assertIn(b"--draft has no effect with --no-speculation", vain.stderr)
        quip("bench", self.model, "--draft", self.model, "-p", 20, "-n", 5, "--repeat", 1, check=0)
        absent = quip("run", self.model, "x", "--draft", "absent.bin", check=1)
        self.assertIn(b"absent.bin", absent.stderr)

    def test_options_without_effect_are_named(self):
        args = ["run", self.model, "x", "-n", 5]
        said = quip(*args, "--top-k", 40, "--seed", 5, check=0).stderr
        self.assertEqual(said, b"")
        for options, expected in {
            ("--temperature", 1, "--top-k", 1, "--top-p", 0.5): [b"--temperature has", b"--top-p has no effect with --top-k 1"],
            ("--greedy", "--temperature", 1, "--seed", 5): [b"--temperature has", b"--seed has no effect with --greedy"],
            ("--temperature", 0, "--top-k", 40, "--min-p", 0.1): [b"--top-k has no effect with --greedy or at temperature 0", b"--min-p has"],
            ("--penalty-window", 9, "--greedy"): [b"--penalty-window has no effect without a penalty"],
            ("--penalty-window", 9): [],
            ("--raw", "--system", "y"): [b"--system has no effect with --raw"],
            ("--raw", "--template-variables", "{}", "--chat-template", "gemma"): [b"--template-variables has", b"--chat-template has"],
            ("--stop", "\\n"): [b"backslash"],
            ("--json", "--stats"): [b"--stats has no effect with --json"],
            ("--system", "y"): [b"--system has no effect because the model has no chat template"],
            ("--penalty-window", 9, "--repeat-penalty", 1.1, "--stop", "\n"): [],
            ("--system", "y", "--chat-template", "gemma"): [],
        }.items():
            said = quip(*args, *options, check=0).stderr
            self.assertEqual(said.count(b"\n"), len(expected), said)
            for words in expected:
                self.assertIn(words, said)

    def test_default_sampling(self):
        """What is not said is as the checkpoint says, or else the library's default; 0 counts if it is said."""
        def ask(model, *options):
            return quip("run", model, "What is light?", "-n", 30, "--seed", 3, *options, check=0).stdout

        def options_of(model):
            sampling = json.loads(quip("inspect", model, "--json", check=0).stdout)["sampling"]
            return sum([["--" + name.replace("_", "-"), value] for name, value in sampling.items()], [])

        says = WORK / "says"
        shutil.copytree(self.checkpoint, says)
        (says / "generation_config.json").write_text('{"do_sample": true, "temperature": 1.5, "repetition_penalty": 1.25}')
        quip("convert", says, WORK / "says.bin", "--weights", "f32", check=0)
        shown = quip("inspect", WORK / "says.bin", check=0).stdout.decode()
        self.assertIn("temperature 1.5, top_k 50, repeat_penalty 1.25, penalty_window -1 (as the model file says)", shown)
        self.assertIn("(default)", quip("inspect", self.model, check=0).stdout.decode())
        for model in [self.model, WORK / "says.bin"]:
            plain = ask(model)
            self.assertEqual(ask(model, *options_of(model)), plain)
            self.assertNotEqual(ask(model, "--top-k", 0, "--top-p", 0, "--min-p", 0, "--temperature", 3), plain)
            greedy = ask(model, "--greedy")
            self.assertNotEqual(greedy, plain)
            self.assertEqual(ask(model, "--temperature", 0), greedy)
        self.assertEqual(ask(self.model, "--greedy"), greedy)  # whatever the checkpoint says
        (says / "generation_config.json").write_text('{"do_sample": false}')
        quip("convert", says, WORK / "says.bin", "--weights", "f32", check=0)
        self.assertEqual(ask(WORK / "says.bin"), greedy)
        said = quip("run", WORK / "says.bin", "x", "-n", 3, "--seed", 5, check=0).stderr
        self.assertIn(b"--seed has no effect because the model file says that the most likely token always comes", said)

    def test_options_without_effect_of_other_commands(self):
        weights = next(self.checkpoint.glob("*.safetensors"))
        f32 = ["convert", self.model, WORK / "vain.bin", "--weights", "f32"]
        for args, expected in [
            ([*f32, "--mse"], [b"--mse has no effect on float32 weights"]),
            ([*f32, "--block-size", 32], [b"--block-size has no effect on float32 weights"]),
            ([*f32, "--original"], [b"--original has no effect without int4 weights"]),
            ([*f32, "--mse", "--attention-bits", 8], []),
            ([*f32, "--mse", "--quiet"], []),
            (["inspect", weights, "--context", 64], [b"--context has no effect"]),
            (["inspect", self.model, "--context", 64], []),
        ]:
            said = [line for line in quip(*args, check=0).stderr.split(b"\n") if b"no effect" in line]
            self.assertEqual(len(said), len(expected), (args, said))
            for line, words in zip(said, expected):
                self.assertIn(words, line)
        said = quip("tokenize", self.model, "a", "--special", "--no-special", check=2).stderr
        self.assertIn(b"exclude each other", said)
        self.assertIn(b'no chat template named "x"', quip("render", self.model, "--name", "x", check=2).stderr)

    def test_an_address_is_not_a_file(self):
        address = "https://huggingface.co/example/model"
        for args in [["run", address, "x"], ["inspect", address], ["convert", address, WORK / "x.bin"]]:
            said = quip(*args, check=1).stderr.decode()
            self.assertEqual(said, f"quip: {address}: is an address, not a file; download it first\n")
        for command in ["run", "inspect"]:  # as of a variable that is not set
            self.assertEqual(quip(command, "", stdin="x", check=1).stderr, b"quip: the name of a file is empty\n")

    def test_render_names_the_file(self):
        (WORK / "wrong.json").write_text("hello")
        (WORK / "plain.jinja").write_text("{{ messages }}")
        said = quip("render", "--template", WORK / "plain.jinja", WORK / "wrong.json", check=2).stderr
        self.assertIn(b"wrong.json: the JSON is not valid at byte 0", said)
        (WORK / "wrong.json").write_text('{"messages": 3}')
        said = quip("render", "--template", WORK / "plain.jinja", WORK / "wrong.json", check=1).stderr
        self.assertIn(b"wrong.json: messages are not an array\n", said)

    def test_penalties(self):
        args = ["run", self.model, "What is light?", "-n", 40, "--greedy"]
        plain = quip(*args, check=0).stdout
        self.assertEqual(quip(*args, "--repeat-penalty", 1, check=0).stdout, plain)
        for option in ["--repeat-penalty", "--presence-penalty", "--frequency-penalty"]:
            self.assertNotEqual(quip(*args, option, 50, check=0).stdout, plain, option)
        self.assertNotEqual(quip(*args, "--no-repeat-ngram", 1, "--penalty-window", -1, check=0).stdout, plain)
        self.assertIn(b"0 to 100", quip(*args, "--dry", 101, check=2).stderr)

    def test_document_on_stdin(self):
        def answer(prompt, stdin="", *more):
            return quip("run", self.model, prompt, "-n", 20, "--greedy", *more, stdin=stdin, check=0).stdout

        both = answer("-", "The sky.\n\nWhat is light?")
        self.assertEqual(answer("What is light?", "The sky.\n"), both)
        self.assertEqual(answer("What is light?", "The sky."), both)
        self.assertNotEqual(both, answer("What is light?"))
        self.assertEqual(answer("-", "What is light?\r\n"), answer("What is light?"))
        self.assertEqual(answer("b", "a\n", "--raw"), answer("-", "a\nb", "--raw"))
        self.assertNotEqual(answer("-", "a\n", "--raw"), answer("-", "a", "--raw"))

    def test_a_prompt_may_be_missing(self):
        want = quip("run", self.model, "What is light?", "-n", 5, "--greedy", check=0).stdout
        self.assertEqual(quip("run", self.model, "-n", 5, "--greedy", stdin="What is light?\n", check=0).stdout, want)
        for args in [[], ["-"]]:
            done = quip("run", self.model, *args, stdin="\n", check=1)
            self.assertEqual((done.stdout, b"standard input is empty" in done.stderr), (b"", True))
        quip("run", self.model, "", "-n", 5, check=0)

    def test_a_pipe_that_nobody_writes_to(self):
        end, other_end = os.pipe()
        done = subprocess.run([QUIP, "run", self.model, "x", "-n3"], stdin=end, capture_output=True, timeout=60)
        os.close(end), os.close(other_end)
        self.assertEqual((done.returncode, b"nothing came from the pipe" in done.stderr), (0, True))

    def test_encodings_of_stdin(self):
        text = "Was ist Licht? \U0001f4a1 €"
        want = quip("run", self.model, text, "-n", 9, "--greedy", check=0).stdout
        for encoding in ["utf-16", "utf-8-sig"]:
            done = quip("run", self.model, "-", "-n9", "--greedy", stdin=text.encode(encoding), check=0)
            self.assertEqual(done.stdout, want)
        big_endian = b"\xfe\xff" + text.encode("utf-16-be")
        self.assertEqual(quip("run", self.model, "-", "-n9", "--greedy", stdin=big_endian, check=0).stdout, want)
        wrong = {"ü".encode("latin1"): b"byte 0 is 0xfc", b"ab\0": b"byte 2", b"\xff\xfeabc": b"UTF-16",
                 b"\xff\xfe\x00\xd8a\0": b"UTF-16", text.encode("utf-16-le"): b"not"}
        for stdin, word in wrong.items():
            done = quip("run", self.model, "-", stdin=stdin, check=1)
            self.assertIn(word, done.stderr)
            self.assertEqual(done.stdout, b"")
        done = subprocess.run([QUIP, "run", self.model, b"\xfc"], stdin=subprocess.DEVNULL, capture_output=True)
        self.assertEqual((done.returncode, b"not UTF-8" in done.stderr), (1, True))

    def test_no_home(self):
        home = WORK / "absent-home"
        env = {"HOME": str(home), "XDG_CACHE_HOME": ""}
        quip("chat", self.model, "-n", 3, stdin="x\n", env=env, check=0)
        self.assertFalse(home.exists())
        self.assertEqual(at_terminal("chat", self.model, "-n", 3, typed=b"x\r\x04", env=env, cwd=WORK), 0)
        self.assertFalse(home.exists())
        empty = WORK / "empty"
        empty.mkdir()
        env = {"HOME": ".", "XDG_CACHE_HOME": "cache"}
        self.assertEqual(at_terminal("chat", self.model, "-n", 3, typed=b"\x04", env=env, cwd=empty), 0)
        self.assertEqual(list(empty.iterdir()), [])

    def test_a_file_size_limit_is_a_failure(self):
        out = WORK / "limited.bin"
        limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
        done = subprocess.run([QUIP, "convert", self.model, out], capture_output=True, preexec_fn=limit)
        self.assertEqual((done.returncode, done.stderr.count(b"\n")), (1, 1))
        self.assertEqual(list(WORK.glob("limited*")), [])

    def test_a_model_that_changes_while_it_is_open(self):
        copy, data = WORK / "changed.bin", self.model.read_bytes()

        def rename():
            other = WORK / "other.bin"
            other.write_bytes(b"another file")
            other.rename(copy)

        changes = [lambda: os.truncate(copy, 0), lambda: copy.write_bytes(data), rename, copy.unlink]
        for change, options, code in [
            (changes[0], [], 1),
            (changes[1], [], 1),
            (changes[0], ["--no-mmap"], 0),
            (changes[2], [], 0),  # the mapped file is as before
            (changes[3], [], 0),
        ]:
            copy.write_bytes(data)
            time.sleep(0.02)  # the clock of a file system
            with subprocess.Popen([QUIP, "chat", copy, "-n", "1", *options], stdin=subprocess.PIPE,
                                  stdout=subprocess.PIPE, stderr=subprocess.PIPE) as p:
                p.stdin.write(b"x\n"), p.stdin.flush()
                p.stdout.read(1)  # of the only token, or the line's end: nothing is computed then
                change()
                _, said = p.communicate(b"y\n")
            self.assertEqual((p.returncode, b"truncated" in said), (code, code == 1), said)

    def test_a_model_that_changes_while_it_is_converted(self):
        source, out, data = WORK / "converted.bin", WORK / "half.bin", self.model.read_bytes()

        def convert_and(change):
            """Convert; the program waits after it has begun to write, because its stdout is full."""
            source.write_bytes(data)
            done, into = os.pipe()
            os.set_blocking(into, False)
            try:
                while True:
                    os.write(into, b"x" * 65536)
            except BlockingIOError:
                os.set_blocking(into, True)
            command = [QUIP, "convert", source, out, "--weights", "int8", "--json"]
            with subprocess.Popen(command, stdout=into, stderr=subprocess.PIPE) as p:
                os.close(into)
                limit = time.time() + 20
                while not (WORK / "half.bin.part").exists():
                    self.assertLess(time.time(), limit)
                    time.sleep(0.01)
                time.sleep(0.2)
                change(p)
                with open(done, "rb") as reader:
                    reader.read()
                said = p.stderr.read()
            self.assertEqual((p.returncode, said.count(b"\n"), b"truncated" in said), (1, 1, True), said)
            self.assertEqual(list(WORK.glob("half.bin*")), [])

        convert_and(lambda p: source.write_bytes(data))
        convert_and(lambda p: os.truncate(source, 0))
        convert_and(lambda p: p.send_signal(signal.SIGBUS))  # as when it reads what is no longer there

    def test_closed_standard_files(self):
        """A file that is written must not become stdout or stderr."""
        out, wanted = WORK / "closed.bin", WORK / "wanted.bin"
        quip("convert", self.checkpoint, wanted, "--weights", "int8", check=0)
        for closed, options, is_written in [([0, 1], ["--json"], False), ([1], ["--json"], False), ([2], [], True),
                                            ([0, 1, 2], [], True)]:
            out.unlink(missing_ok=True)
            close = lambda: [os.close(fd) for fd in closed]
            command = [QUIP, "convert", self.checkpoint, out, "--weights", "int8", *options]
            done = subprocess.run(command, capture_output=True, preexec_fn=close)
            self.assertEqual((done.returncode == 0, out.exists()), (is_written, is_written), (closed, done))
            self.assertTrue(not is_written or out.read_bytes() == wanted.read_bytes(), closed)
        done = subprocess.run([QUIP, "run", self.model, "x", "-n", "3"], stderr=subprocess.PIPE,
                              preexec_fn=lambda: os.close(1))
        self.assertEqual((done.returncode, done.stderr), (1, b"quip: stdout: cannot be written: Bad file descriptor\n"))

    def test_full_disk(self):
        """In a disk of its own; skipped where a user may not mount one."""
        disk = WORK / "disk"
        disk.mkdir()
        script = 'mount -t tmpfs -o size=64k quip "$1" && shift && "$@"; code=$?; ls -A "$0"; exit $code'
        alone = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, disk, disk]
        if not shutil.which("unshare") or subprocess.run([*alone, "true"], capture_output=True).returncode:
            self.skipTest("skipped: no disk can be mounted here")
        task = WORK / "full.task"
        quip("bundle", self.model, task, check=0)
        for args in [
            ["convert", self.checkpoint, disk / "out.bin"],
            ["convert", self.model, disk / "out.bin", "--weights", "int8"],
            ["bundle", self.model, disk / "out.task"],
            ["bundle", task, "--extract", disk],
            ["logits", self.model, "--ids", "5," * 200 + "5", "--all", "--out", disk / "logits"],
            ["inspect", self.model, "--tensor", "params.lm.softmax.w", "--out", disk / "tensor"],
        ]:
            done = subprocess.run([*alone, QUIP, *map(str, args)], capture_output=True, text=True)
            self.assertEqual((done.returncode, done.stderr.count("\n")), (1, 1), (args, done.stderr))
            left = done.stdout.replace("METADATA\n", "")  # an entry of the bundle that is complete
            self.assertEqual(left, "", (args, "nothing is left"))
        with open("/dev/full", "wb") as full:
            done = subprocess.run([QUIP, "run", self.model, "x", "-n", "3"], stdout=full, stderr=subprocess.PIPE)
        self.assertEqual((done.returncode, done.stderr), (1, b"quip: stdout: cannot be written: No space left on device\n"))

    def test_context_full(self):
        done = quip("run", self.model, "light " * 200, "--context", 32, check=1)
        self.assertRegex(done.stderr, rb"^quip: \d+ more tokens do not fit: 0 of the context's 32 are in use; --context N makes it larger\n$")
        done = quip("run", self.model, "light", "--context", 24, "--greedy", check=0)
        self.assertIn(b"context of 24 tokens is full", done.stderr)

    def test_closed_pipe(self):
        with subprocess.Popen([QUIP, "run", self.model, "x"], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as p:
            p.stdout.read(1)
            p.stdout.close()
            self.assertEqual(p.stderr.read(), b"")
        self.assertIn(p.returncode, [0, -signal.SIGPIPE])

    def test_interrupted_run(self):
        command = [QUIP, "run", self.model, "x", "--greedy"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as p:
            said = p.stdout.read(1)
            p.send_signal(signal.SIGINT)
            said += p.stdout.read()
        self.assertEqual(p.returncode, 130)
        self.assertEqual(said[-1:], b"\n")

    def test_chat_through_pipe(self):
        done = quip("chat", self.model, "-n", 8, "--greedy", stdin="one\n\ntwo\n/stats\n/nonsense\n/reset now\n/reset\n/adapter\n/adapter nowhere:0.5\n"
                    "/adapter off\none\n/exit\nthree\n")
        self.assertEqual(done.returncode, 0)
        self.assertIn(b"unknown command /nonsense", done.stderr)
        self.assertIn(b"/reset has no argument", done.stderr)
        self.assertIn(b"expected /adapter PATH", done.stderr)
        self.assertIn(b"nowhere: No such file", done.stderr)
        self.assertIn(b"context: ", done.stderr)
        first = quip("chat", self.model, "-n", 8, "--greedy", stdin="one", check=0).stdout
        self.assertTrue(done.stdout.startswith(first) and done.stdout.endswith(first))

    def test_each_piped_turn_leaves_a_line(self):
        lines = ["one", "light " * 50, "/nonsense", "two"]
        done = quip("chat", self.model, "-n", 1, "-c", 40, "--greedy", stdin="\n".join(lines), check=1)
        self.assertRegex(done.stderr.decode(), r"quip: line 2: .*40.*--context")
        rows = done.stdout.split(b"\n")
        self.assertEqual((len(rows), rows[1]), (4, b""))
        good = quip("chat", self.model, "-n", 1, "-c", 40, "--greedy", stdin="one\ntwo\n", check=0).stdout
        self.assertEqual(rows[0] + b"\n" + rows[2] + b"\n", good)
        stopped = quip("chat", self.model, "-n", 1, "--greedy", "--stop", rows[0].decode()[:1] or " ", stdin="one\n", check=0)
        self.assertEqual(stopped.stdout, b"\n")  # an empty answer

    def test_encodings_of_piped_chat(self):
        text = "Was ist Licht?\r\n\U0001f4a1 €\r\n"
        want = quip("chat", self.model, "-n", 9, "--greedy", stdin=text, check=0).stdout
        for encoding in ["utf-16", "utf-8-sig"]:
            self.assertEqual(quip("chat", self.model, "-n9", "--greedy", stdin=text.encode(encoding), check=0).stdout, want)
        wrong = b"one\nfu\xfcr\n\xff\xfea\nz\0z\ntwo\n"
        done = quip("chat", self.model, "-n", 9, "--greedy", stdin=wrong, check=1)
        self.assertIn(b"line 2 is not UTF-8: byte 2 is 0xfc", done.stderr)
        self.assertIn(b"line 3 is not UTF-8: byte 0 is 0xff", done.stderr)
        self.assertIn(b"line 4 is not a text", done.stderr)
        one, two = quip("chat", self.model, "-n", 9, "--greedy", stdin="one\ntwo", check=0).stdout, b"\n\n\n"
        self.assertEqual(done.stdout.replace(two, b""), one)
        self.assertEqual(done.stdout.count(b"\n"), one.count(b"\n") + 3)

    def test_encodings_of_other_commands(self):
        text = "a light \U0001f4a1. " * 20
        (WORK / "utf16.txt").write_bytes(text.encode("utf-16"))
        (WORK / "utf8.txt").write_text(text)
        embed = ["embed", self.model, "--pooling", "mean"]
        want = {
            "tokenize": quip("tokenize", self.model, text, check=0).stdout,
            "embed": quip(*embed, text, check=0).stdout,
            "eval": quip("eval", self.model, "--window", 8, "--text", WORK / "utf8.txt", check=0).stdout,
        }
        found = {
            "tokenize": quip("tokenize", self.model, stdin=text.encode("utf-16"), check=0).stdout,
            "embed": quip(*embed, stdin=(text + "\n").encode("utf-16"), check=0).stdout,
            "eval": quip("eval", self.model, "--window", 8, "--text", WORK / "utf16.txt", check=0).stdout,
        }
        self.assertEqual(found, want)
        wrong = b"fu\xfcr"
        (WORK / "latin1.txt").write_bytes(wrong)
        for args, stdin in [
            (["tokenize", self.model], wrong),
            (["tokenize", self.model, os.fsdecode(wrong)], b""),
            (embed, wrong),
            ([*embed, os.fsdecode(wrong)], b""),
            (["eval", self.model, "--text", WORK / "latin1.txt"], b""),
            (["render", "--template", WORK / "utf8.txt"], b'{"messages": []}' + wrong),
        ]:
            done = quip(*args, stdin=stdin, check=1)
            self.assertEqual((done.stdout, b"is not UTF-8: byte" in done.stderr), (b"", True), done.stderr)
        lines = b'{"text": "fu\xfcr"}\n{"text": "a"}\n'
        for args in [["tokenize", self.model], embed]:
            done = quip(*args, "--jsonl", stdin=lines, check=1)
            rows = [json.loads(row) for row in done.stdout.splitlines()]
            self.assertEqual((rows[0], "error" in rows[1]), ({"error": "the line is not UTF-8"}, False))

    def test_interrupted_piped_chat(self):
        """One Ctrl-C ends it, however many lines are left."""
        with subprocess.Popen([QUIP, "chat", self.model, "--greedy"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE) as p:
            p.stdin.write(b"one\n" * 9), p.stdin.close()
            p.stdout.read(1)
            p.send_signal(signal.SIGINT)
            p.stdout.read()
        self.assertEqual(p.returncode, 130)

    def test_closed_standard_input(self):
        """The model is not taken for standard input."""
        for command in ["chat", "run"]:
            done = subprocess.run(["sh", "-c", f"{QUIP} {command} {self.model} -n 3 <&-"], capture_output=True, timeout=60)
            self.assertEqual((done.returncode, done.stdout), (1, b""))
            self.assertIn(b"Bad file descriptor", done.stderr)

    def test_standard_files_that_do_not_block(self):
        """Node gives its children such pipes: what is not there yet must be waited for."""
        text = "light " * 30
        want = quip("run", self.model, "-", "-n", 20, "--greedy", stdin=text, check=0).stdout
        read_in, write_in = os.pipe()
        read_out, write_out = os.pipe()
        os.set_blocking(read_in, False), os.set_blocking(write_out, False)
        with subprocess.Popen([QUIP, "run", self.model, "-", "-n", "20", "--greedy"], stdin=read_in, stdout=write_out) as p:
            time.sleep(0.2)
            os.write(write_in, text[:50].encode())
            time.sleep(0.2)
            os.write(write_in, text[50:].encode())
            os.close(write_in), os.close(read_in), os.close(write_out)
            with open(read_out, "rb") as out:
                self.assertEqual(out.read(), want)
        self.assertEqual(p.returncode, 0)

    def test_input_ends_at_once(self):
        self.assertEqual(quip("chat", self.model, stdin="", check=0).stdout, b"")
        done = subprocess.run([QUIP, "chat", self.model], stdin=subprocess.DEVNULL, capture_output=True, timeout=60)
        self.assertEqual((done.returncode, done.stdout), (0, b""))
        with open(WORK / "write-only", "wb") as no_input:
            for args in [["chat", self.model], ["run", self.model, "-"], ["tokenize", self.model]]:
                done = subprocess.run([QUIP, *args], stdin=no_input, capture_output=True, timeout=60)
                self.assertEqual((done.returncode, done.stdout, b"Bad file descriptor" in done.stderr), (1, b"", True))

    def test_a_loop_that_reads_lines(self):
        """`while read line; do quip run …; done < file` gives the rest of the file to the first run."""
        (WORK / "lines").write_text("one\ntwo\nthree\n")
        loop = f'while read line; do echo "[$line]"; {QUIP} run {self.model} "$line" -n 3 --raw --greedy'
        done = subprocess.run(["sh", "-c", f"{loop}; done < {WORK}/lines"], capture_output=True, timeout=60)
        self.assertIn(b"from byte 4 on, comes before the prompt; </dev/null", done.stderr)
        done = subprocess.run(["sh", "-c", f"{loop} </dev/null; done < {WORK}/lines"], capture_output=True, timeout=60)
        self.assertEqual(done.stdout.count(b"["), 3, done.stdout)
        self.assertEqual(done.stderr, b"")

    def test_prompt_tokens_count_all_that_was_fed(self):
        ids = quip("tokenize", self.model, "a light", check=0).stdout.split()
        answer = json.loads(quip("run", self.model, "a light", "--raw", "-n", 1, "--json", check=0).stdout)
        self.assertEqual(answer["prompt_tokens"], 1 + len(ids))  # <bos>
        done = quip("chat", self.model, "-n", 4, stdin="one\n/stats\ntwo\n/stats\n", check=0).stderr.decode()
        n_fed = 0
        for prompt, n, finish, position in re.findall(
            r"prompt: (\d+) tokens.*?answer: (\d+) tokens.*?\((\w+)\).*?context: (\d+)", done, re.S
        ):
            n_fed += int(prompt) + int(n) - (finish == "stop")
            self.assertEqual(int(position), n_fed)
        self.assertGreater(n_fed, 10)

    def test_limits_of_threads(self):
        for n in [0, 1, 256]:
            quip("run", self.model, "x", "-n", 1, "--threads", n, check=0)
        commands = [["run", "x"], ["chat"], ["bench"], ["logits", "--ids", "1", "--out", "-"], ["eval", "--text", __file__]]
        for command, *more in commands:
            for n in ["-1", "257", "99999999999999999999", "two"]:
                done = quip(command, self.model, *more, "--threads", n, check=2)
                self.assertIn(b"whole number from 0 to 256", done.stderr)

    def test_bench(self):
        args = ["bench", self.model, "-p", 40, "-n", 10, "-t", 1, "--repeat", 2]
        found = json.loads(quip(*args, "--json", check=0).stdout)
        for name in ["open_ms", "first_token_ms", "prefill_tokens_per_s", "decode_tokens_per_s"]:
            f = found[name]
            self.assertTrue(0 < f["min"] <= f["median"] <= f["max"], f)
        for name in ["peak_rss_bytes", "file_backed_bytes", "own_bytes"]:
            self.assertGreater(found[name], 0)
        self.assertIn(b"decode", quip(*args, check=0).stdout)


class WithEncoder(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.checkpoint = SHARED / "data/golden-2/bert"
        need(cls.checkpoint)
        cls.model = WORK / "bert.bin"
        quip("convert", cls.checkpoint, cls.model, "--weights", "f32", check=0)

    def embed(self, *args, stdin="", check=0):
        out = quip("embed", self.model, *args, stdin=stdin, check=check).stdout
        return [json.loads(line) for line in out.split(b"\n")[:-1]]

    def test_ids(self):
        prompts = json.loads((self.checkpoint / "expected.json").read_text())["prompts"].values()
        lines = "\n".join(json.dumps({"ids": p["ids"]}) for p in prompts)
        for found, p in zip(self.embed("--jsonl", stdin=lines), prompts):
            expected = floats(self.checkpoint / p["embedding_file"])
            self.assertEqual(len(found["embedding"]), len(expected))
            self.assertLess(max(abs(a - b) for a, b in zip(found["embedding"], expected)), 1e-5)

    def test_texts(self):
        texts = ["Hello, world!", "", "a\nb"]
        found = self.embed(*texts)
        lines = "\n".join(json.dumps({"text": t}) for t in texts)
        self.assertEqual(found, self.embed("--jsonl", stdin=lines))
        self.assertEqual(found[2:], self.embed(stdin=texts[2]))
        self.assertEqual(len(self.embed("--dimensions", 8, "a")[0]["embedding"]), 8)

    def test_wrong_lines(self):
        lines = [
            '{"ids": [2, 74, 3], "token_type_ids": [0, 0, 0]}',
            '{"ids": [2, 74, 3], "token_type_ids": [0, 0, 1]}',
            '{"text": "a", "text_pair": "b"}',
            '{"text": ["a", "b"]}',
            '{"ids": [2, 999999, 3]}',
            '{"ids": [2, 74, 3], "text": "a"}',
            "nonsense",
            '{"ids": [2, 74, 3]}',
        ]
        found = self.embed("--jsonl", stdin="\n".join(lines), check=1)
        kinds = [list(f)[0] for f in found]
        self.assertEqual(kinds, ["embedding"] + ["error"] * 6 + ["embedding"])
        self.assertEqual(found[0], found[-1])
        for f in found[1:3]:
            self.assertIn("is a pair of texts", f["error"])


if __name__ == "__main__":
    QUIP = str(pathlib.Path(sys.argv[1]).resolve() / "quip")
    with tempfile.TemporaryDirectory() as folder:
        WORK = pathlib.Path(folder)
        unittest.main(argv=[sys.argv[0], *sys.argv[2:]])
