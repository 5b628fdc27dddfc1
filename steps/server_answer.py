"""Does a server answer a real prompt?"""

import urllib3

from presets.errors import KaiflowError, TryAgainError

PROBE = {"prompt": "Hello", "generate_kwargs": {"max_new_tokens": 8}}
ANSWER_SECONDS = 120.0


def answers(endpoint: str) -> KaiflowError | None:
    """Return None when the server answers a real prompt, or others' and can take no more; else what is wrong."""
    try:
        response = urllib3.request(
            "POST", f"{endpoint}/chat", json=PROBE, timeout=ANSWER_SECONDS, retries=False, redirect=False
        )
        if response.status == 200 and isinstance(response.json().get("Result"), str):
            return None
        if response.status == 429:  # it has more to answer than it can
            return None
        problem = f"it answered {response.status}"
    except (urllib3.exceptions.HTTPError, ValueError) as error:
        problem = type(error).__name__
    return TryAgainError("ServerSilent", f"The server does not answer a prompt: {problem}.", fix="Read its log.")
