"""Which errors does the hub's client raise where the hub is not reached?

Its HTTP library is not always the same (requests, httpx, httpx2): the base of all its errors is that of its own.
"""


def transport_errors() -> tuple[type[Exception], ...]:
    """Return the classes to catch, those of refusals among them; OSError, too: what the network says itself."""
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    library = [base for base in HfHubHTTPError.__mro__ if base.__name__ in ("HTTPError", "RequestException")]
    return (*library, OSError, LocalEntryNotFoundError, OfflineModeIsEnabled)
