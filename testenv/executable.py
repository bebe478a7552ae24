#!/usr/bin/env python3
"""Print the path of the executable of a target, out of what cargo says with --message-format=json on stdin.

    cargo build --bins --message-format=json-render-diagnostics | executable.py NAME...
"""

import json
import sys

paths = {}
for line in sys.stdin:
    message = json.loads(line) if line.startswith("{") else {}
    if message.get("executable"):
        paths[message["target"]["name"]] = message["executable"]
for name in sys.argv[1:]:
    if name not in paths:
        sys.exit(f"executable.py: cargo has built no {name}")
    print(paths[name])
