#!/usr/bin/env python3
"""Chat templates of published models, rendered by the program and by transformers.

    tests/templates.py BUILD

The renderings are those of shared/data/templates (environment QUIP_SHARED, else ../shared): 1710 of 45
templates, and 568 of small ones. Each is equal, or fails where transformers fails. Without the folder the
test is skipped. With CI=true it fails.
"""
import gzip
import json
import os
import pathlib
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
FOLDER = pathlib.Path(os.environ.get("QUIP_SHARED", ROOT.parent / "shared")) / "data/templates"
NOW = "2026-03-14T09:26:53"
REFUSED = {"{{ s.encode() }}"}  # what we refuse and transformers render


def lines(name):
    with gzip.open(FOLDER / name, "rt", encoding="utf8") as f:
        return [json.loads(line) for line in f]


def render(quip, template, conversations):
    """One result, {"text": ...} or {"error": ...}, for each object of variables."""
    done = subprocess.run([quip, "render", "--template", template, "--jsonl", "--now", NOW],
                          input="".join(json.dumps(c, ensure_ascii=False) + "\n" for c in conversations).encode(),
                          capture_output=True, timeout=120)
    if done.returncode:
        return [{"error": done.stderr.decode()}] * len(conversations)
    return [json.loads(line) for line in done.stdout.splitlines()]


def is_right(case, got):
    for outcome in filter(None, (case, case.get("if_undefined"))):
        if "rendered" in outcome and got.get("text") == outcome["rendered"]:
            return True
        if "error" in outcome and "error" in got:
            raised = outcome["error"]["kind"] == "raised"
            if not raised or got["error"].endswith(outcome["error"]["message"]):
                return True
    return False


def main():
    quip = pathlib.Path(sys.argv[1]) / "quip"
    if not FOLDER.exists():
        print(f"{FOLDER} is missing")
        return 1 if os.environ.get("CI") == "true" else 77
    templates = {t["id"]: t for t in json.loads((FOLDER / "index.json").read_text(encoding="utf8"))}
    conversations = json.loads((FOLDER / "conversations.json").read_text(encoding="utf8"))
    cases, failures, count = {}, [], 0
    for case in lines("cases.jsonl.gz"):
        cases.setdefault(case["template"], []).append(case)
    for name, of in cases.items():
        template = templates[name]
        tokens = {k: template[k] for k in ("bos_token", "eos_token") if template[k]}
        results = render(quip, FOLDER / f"{name}.jinja", [{**conversations[c["conversation"]], **tokens} for c in of])
        assert len(results) == len(of), name
        count += len(of)
        failures += [(name, c["conversation"], r) for c, r in zip(of, results) if not is_right(c, r)]
    head, *snippets = lines("snippets.jsonl.gz")
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "snippet.jinja"
        for case in snippets:
            path.write_bytes(case["template"].encode())
            result = render(quip, path, [head["context"]])[0]
            count += 1
            if not is_right(case, result) and not ("error" in result and case["template"] in REFUSED):
                failures.append((case["template"], case.get("rendered"), result))
    for failure in failures[:20]:
        print(*failure)
    print(f"{count - len(failures)} of {count} renderings are right")
    return 1 if failures else 0


sys.exit(main())
