#!/usr/bin/env python3
"""Many clients at once, well-behaved and not: `load.py PROGRAM [--minutes 5] [--clients 32]`.

Starts PROGRAM as a server of the embedded model, and asserts that

- there is no 5xx but 503, which says when to come again;
- every greedy answer that was finished is the one that `run` prints;
- memory stays within 5 % after the first minute (or third, if there are fewer than three);
- in the end no sequence and no page is in use, and SIGTERM ends the server with 0.

Only this machine is spoken to. Prints the counts as a table for `bench/`, or with `--json` as an
object; faults go to stderr.
"""

import argparse
import collections
import datetime
import http.client
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time

QUESTIONS = [
    "How many r's are in strawberry?",
    "12 + 30 = ?",
    "Spell cachalot backwards.",
    "Sort 5, 3, 9, 1.",
    "Which is larger, 9.9 or 9.11?",
    "7 * 6 = ?",
]
BODY_MAX = 100_000


class Load:
    def __init__(self, options):
        self.options = options
        self.lock = threading.Lock()
        self.counts = collections.Counter()
        self.faults = []
        self.rss = []
        self.expected = {}

    def fault(self, what):
        with self.lock:
            self.faults.append(what)

    def count(self, what):
        with self.lock:
            self.counts[what] += 1

    def start(self):
        env = {k: v for k, v in os.environ.items()
               if k not in ("CACHALOT_HOST", "OLLAMA_HOST", "LLAMA_API_KEY")}
        env["CACHALOT_RECORD"] = "off"
        for question in QUESTIONS:
            ran = subprocess.run(
                [self.options.program, "run", "--standalone", "--temp=0", "--reproducible",
                 "--json", question],
                env=env, capture_output=True, check=True, timeout=120)
            self.expected[question] = json.loads(ran.stdout)["answer"].strip()
        self.server = subprocess.Popen(
            [self.options.program, "serve", "--port", "0", "--reproducible", "--parallel", "8", "--queue", "16",
             "--max-body", str(BODY_MAX)],
            env=env, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL)
        for line in self.server.stderr:
            found = re.search(rb"on http://127\.0\.0\.1:(\d+)", line)
            if found:
                self.port = int(found[1])
                break
        else:
            sys.exit("the server did not start")
        # What it logs later is read, or it would wait for a reader.
        threading.Thread(target=self.server.stderr.read, daemon=True).start()

    # -- one request ------------------------------------------------------------------------------

    def request(self, method, path, body=None, headers=None):
        """A response that is read to its end: its status, headers and bytes."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        try:
            data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
            connection.request(method, path, data, headers or {"content-type": "application/json"})
            response = connection.getresponse()
            content = response.read()
            self.check(path, response.status, response.headers)
            return response.status, content
        finally:
            connection.close()

    def check(self, path, status, headers):
        self.count(f"status {status}")
        if status >= 500 and status != 503:
            self.fault(f"{path}: status {status}")
        if status == 503 and not headers.get("retry-after"):
            self.fault(f"{path}: 503 without Retry-After")

    def raw(self, data, read=0, pause=0.0, seconds=5.0):
        """Sends bytes, reads some slowly, and leaves."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=120) as connection:
            connection.sendall(data)
            until = time.monotonic() + seconds
            head = b""
            while read > 0 and time.monotonic() < until:
                part = connection.recv(min(read, 64))
                if not part:
                    break
                head += part[: 64 - len(head)] if len(head) < 64 else b""
                read -= len(part)
                time.sleep(pause)
            found = re.match(rb"HTTP/1\.[01] (\d{3})", head)
            if found:
                status = int(found[1])
                self.count(f"status {status}")
                if status >= 500 and status != 503:
                    self.fault(f"status {status} for {data[:60]!r}")

    # -- what clients do --------------------------------------------------------------------------

    def compare(self, question, text, dialect):
        self.count("answers")
        if text.strip() != self.expected[question]:
            self.fault(f"{dialect}: {question!r} was answered {text!r}, "
                       f"not {self.expected[question]!r}")

    def whole(self, random_):
        question = random_.choice(QUESTIONS)
        dialect = random_.choice(["chat", "messages", "responses", "ollama"])
        messages = [{"role": "user", "content": question}]
        path, body, text = {
            "chat": ("/v1/chat/completions", {"messages": messages, "temperature": 0},
                     lambda a: a["choices"][0]["message"]["content"]),
            "messages": ("/v1/messages",
                         {"messages": messages, "temperature": 0, "max_tokens": 4000, "model": "x"},
                         lambda a: "".join(b.get("text", "") for b in a["content"])),
            "responses": ("/v1/responses", {"model": "calf", "input": question, "temperature": 0},
                          lambda a: a["output_text"]),
            "ollama": ("/api/chat",
                       {"model": "calf", "messages": messages, "stream": False,
                        "options": {"temperature": 0}},
                       lambda a: a["message"]["content"]),
        }[dialect]
        status, content = self.request("POST", path, body)
        if status == 200:
            self.compare(question, text(json.loads(content)), dialect)
        elif status != 503:
            self.fault(f"{path}: status {status}: {content[:200]!r}")

    def streamed(self, random_):
        question = random_.choice(QUESTIONS)
        body = {"messages": [{"role": "user", "content": question}], "temperature": 0,
                "stream": True}
        status, content = self.request("POST", "/v1/chat/completions", body)
        if status != 200:
            return
        text, ended = "", False
        for line in content.decode().split("\n"):
            if line == "data: [DONE]":
                ended = True
            elif line.startswith("data: "):
                event = json.loads(line[6:])
                if "error" in event:
                    self.fault(f"a stream broke off: {event}")
                    return
                for choice in event["choices"]:
                    text += choice["delta"].get("content") or ""
        if not ended:
            self.fault("a stream has no end")
        self.compare(question, text, "stream")

    def long(self, stream):
        body = json.dumps({"prompt": "1", "n_predict": -1, "ignore_eos": True, "stream": stream,
                           "n_probs": 5}).encode()
        head = f"POST /completion HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(body)}\r\n\r\n"
        return head.encode() + body

    def cancels(self, random_):
        self.raw(self.long(True), read=random_.randrange(1, 20_000))
        self.count("cancelled")

    def disconnects(self, random_):
        self.raw(self.long(random_.random() < 0.5), read=0)
        time.sleep(random_.random() / 5)
        self.count("disconnected")

    def slow(self, _):
        self.raw(self.long(True), read=10_000, pause=0.05, seconds=3.0)
        self.count("slow")

    def oversized(self, random_):
        size = random_.choice([BODY_MAX + 1, 3 * BODY_MAX, 40 * BODY_MAX])
        try:
            status, _ = self.request("POST", "/v1/chat/completions", b"x" * size)
            if status != 413:
                self.fault(f"a body of {size} bytes got status {status}")
        except (BrokenPipeError, ConnectionResetError):
            pass  # it was refused while it was still being sent
        self.count("oversized")

    def malformed(self, random_):
        path = random_.choice(["/v1/chat/completions", "/v1/completions", "/v1/messages",
                               "/v1/responses", "/api/chat", "/api/generate", "/completion",
                               "/tokenize", "/detokenize", "/apply-template"])
        body = random_.choice([b"", b"{", b"[]", b"null", b"\xff\xfe", b"{\"a\":" * 80, b"{\"a\":1,}",
                               b"{\"messages\": [{\"role\": 1}]}", b"{\"prompt\": {}}",
                               b"{\"model\": \"calf\", \"messages\": 7, \"prompt\": [[-1]]}"])
        status, content = self.request("POST", path, body)
        if not 400 <= status < 500 and not (status in (200, 503)):
            self.fault(f"{path} {body[:40]!r}: status {status}: {content[:100]!r}")
        self.count("malformed")

    def broken(self, random_):
        self.raw(random_.choice([
            b"GARBAGE\r\n\r\n",
            b"POST /completion HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{\"prompt\"",
            b"POST /completion HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
            b"GET /health HTTP/1.1\r\nhost: local",
            b"\x16\x03\x01\x02\x00\x01\x00",
        ]), read=200, seconds=1.0)
        self.count("broken")

    def looks(self, random_):
        path = random_.choice(["/health", "/metrics", "/slots", "/props", "/v1/models", "/api/tags",
                               "/api/ps", "/api/cachalot/status", "/", "/nowhere"])
        self.request("GET", path)

    def client(self, seed, until):
        random_ = random.Random(seed)
        actions = [(self.whole, 30), (self.streamed, 20), (self.cancels, 10),
                   (self.disconnects, 10), (self.slow, 3), (self.oversized, 5),
                   (self.malformed, 8), (self.broken, 5), (self.looks, 9)]
        functions, weights = zip(*actions)
        while time.monotonic() < until:
            action = random_.choices(functions, weights)[0]
            try:
                action(random_)
            except (ConnectionResetError, BrokenPipeError) as error:
                self.count(f"closed: {type(error).__name__}")
            except Exception as error:  # a client's failure is a finding
                self.fault(f"{action.__name__}: {type(error).__name__}: {error}")

    # -- the whole --------------------------------------------------------------------------------

    def memory(self):
        with open(f"/proc/{self.server.pid}/status") as status:
            return int(re.search(r"VmRSS:\s+(\d+)", status.read())[1])

    def run(self):
        self.start()
        seconds = self.options.minutes * 60
        begun = time.monotonic()
        clients = [threading.Thread(target=self.client, args=(seed, begun + seconds))
                   for seed in range(self.options.clients)]
        try:
            for client in clients:
                client.start()
            while time.monotonic() < begun + seconds:
                self.rss.append((time.monotonic() - begun, self.memory()))
                time.sleep(1)
            for client in clients:
                client.join(150)
            self.settled()
        finally:
            self.server.send_signal(signal.SIGTERM)
            code = self.server.wait(60)
        if code != 0:
            self.fault(f"the server ended with {code}")
        self.report(min(60, seconds / 3), seconds)

    def settled(self):
        for _ in range(100):
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
            connection.request("GET", "/api/cachalot/status")
            status = json.loads(connection.getresponse().read())
            connection.close()
            if not status["sequences"] and status["kv"]["pages_used"] == 0:
                return
            time.sleep(0.1)
        self.fault(f"sequences or pages are left: {status['sequences']}, {status['kv']}")

    def report(self, warm, seconds):
        settled = [rss for at, rss in self.rss if at >= warm]
        first, most = settled[0], max(settled)
        if most > first * 1.05:
            self.fault(f"memory grew from {first} to {most} KiB after {warm:.0f} s")
        result = {
            "clients": self.options.clients, "seconds": seconds, "rss_first_kib": first,
            "rss_most_kib": most, **dict(sorted(self.counts.items())),
            "faults": len(self.faults),
        }
        if self.options.json:
            print(json.dumps(result, indent=1))
        else:
            print(self.table(result))
        for what in self.faults[:20]:
            print("fault:", what, file=sys.stderr)
        if not self.counts["answers"]:
            sys.exit("no answer was finished")
        sys.exit(1 if self.faults else 0)


    def table(self, result):
        version = subprocess.run([self.options.program, "--version"], capture_output=True,
                                 check=True).stdout.decode().strip()
        rows = "".join(f"| {name} | {value} |\n" for name, value in result.items())
        return (f"{datetime.date.today()}, {version}, {os.cpu_count()} cores:\n\n"
                f"| what | count |\n|---|---|\n{rows}")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("program")
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--json", action="store_true")
    Load(parser.parse_args()).run()


main()
