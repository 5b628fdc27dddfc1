"""Ask the tuned model of a Workspace one question through its ``/chat`` endpoint; standard library only.

python examples/ask.py quickstart "who wrote the novel moby dick"
"""

import json
import subprocess
import sys
import urllib.request
from pathlib import Path


def main() -> None:
    """Print the question and the answer."""
    name, prompt = sys.argv[1:3]
    kaiflow = Path(sys.executable).parent / "kaiflow"
    workspace = json.loads(subprocess.check_output([kaiflow, "get", name, "-o", "json"]))
    request = urllib.request.Request(  # noqa: S310  (the endpoint is ours)
        workspace["status"]["endpoint"] + "/chat",
        data=json.dumps({"prompt": prompt}).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=120) as response:  # noqa: S310
        answer = json.load(response)["Result"]
    print(f"POST /chat {prompt!r}\n{answer}")  # noqa: T201


if __name__ == "__main__":
    main()
