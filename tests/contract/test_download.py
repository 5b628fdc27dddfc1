"""Does a download end with the right bytes or with a clear error, whatever the server does?"""

import hashlib
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from presets.errors import DataError, KaiflowError, NotPermittedError, TryAgainError, UnavailableError
from steps import download as module
from steps import transfer
from steps.connections import Guard
from steps.download import Downloaded, download
from tests.fault_server import Answering, Fault, Served, healthy, serving

CONTENT = os.urandom(1 << 20)
LOCAL = Guard(private_hosts_allowed=True)
ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _small_parts_and_no_patience(monkeypatch):
    monkeypatch.setattr(transfer, "PART_BYTES", (64 << 10, 64 << 10))
    monkeypatch.setattr(transfer, "FIRST_CONNECTIONS", 16)
    monkeypatch.setattr(transfer, "BACKOFF_SECONDS", 0.001)
    monkeypatch.setattr(module, "BACKOFF_SECONDS", 0.001)


def fetch(url: str, folder: Path, limit: int = 1 << 30) -> Downloaded:
    return download(url, folder, LOCAL, limit, lambda have, total: None)


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def assert_whole(found: Downloaded, content: bytes = CONTENT) -> None:
    assert found.path.read_bytes() == content
    assert found.sha256 == digest(content)
    assert [p.name for p in found.path.parent.iterdir() if p.name.endswith((".part", ".journal"))] == []


def assert_nothing_finished(folder: Path) -> None:
    assert [p.name for p in folder.iterdir() if not p.name.startswith(".")] == []


@pytest.mark.parametrize(
    ("size", "ranges", "etag"),
    [(1 << 20, True, '"v1"'), (1 << 20, True, None), (1 << 20, False, '"v1"'), (1 << 20, True, 'W/"v1"'),
     (10, True, '"v1"'), (1, True, '"v1"'), (65536, True, '"v1"'), (65537, True, '"v1"')],
)  # fmt: skip
def test_a_file_arrives_whole_with_its_digest(tmp_path, size, ranges, etag):
    with serving(Served(CONTENT[:size], etag, ranges=ranges)) as served:
        assert_whole(fetch(served.url, tmp_path), CONTENT[:size])


def test_an_empty_file_arrives_empty(tmp_path):
    with serving(Served(b"")) as served:
        assert_whole(fetch(served.url, tmp_path), b"")


def one_part_at_first(request: Answering, served: Served) -> bool:
    """Cut the first answer behind its first part: whatever the threads do, the others have to be asked for."""
    if request.headers.get("Range") != "bytes=0-":
        return False
    request.send_file(stop_after=65536)
    return True


def test_a_large_file_comes_in_parts_none_of_them_twice(tmp_path):
    with serving(Served(CONTENT), one_part_at_first) as served:
        fetch(served.url, tmp_path)
    spans = [span for _, span in served.asked]
    assert len(spans) == len(set(spans))
    assert len(spans) == 16


def test_a_fast_connection_is_read_to_its_end_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(transfer, "FIRST_CONNECTIONS", 1)
    monkeypatch.setattr(transfer, "FAST_BYTES", 0)
    with serving(Served(CONTENT)) as served:
        assert_whole(fetch(served.url, tmp_path))
    assert [span for _, span in served.asked] == ["bytes=0-"]


def test_slow_connections_get_company(tmp_path, monkeypatch):
    monkeypatch.setattr(transfer, "FIRST_CONNECTIONS", 1)
    monkeypatch.setattr(transfer, "WIDEN_SECONDS", 0.005)
    at_once = []

    def slow(request: Answering, served: Served) -> bool:
        at_once.append(1)
        time.sleep(0.03)
        request.send_file(stop_after=65536)
        at_once.pop()
        return True

    most = 0

    def watched(request: Answering, served: Served) -> bool:
        nonlocal most
        most = max(most, len(at_once) + 1)
        return slow(request, served)

    with serving(Served(CONTENT), watched) as served:
        assert_whole(fetch(served.url, tmp_path))
    assert most > 1


def test_the_second_download_is_a_question(tmp_path):
    with serving(Served(CONTENT)) as served:
        first = fetch(served.url, tmp_path)
        served.asked.clear()
        assert fetch(served.url, tmp_path) == first
        assert len(served.asked) == 1


def test_a_file_that_was_altered_here_is_fetched_again(tmp_path):
    with serving(Served(CONTENT)) as served:
        fetch(served.url, tmp_path).path.write_bytes(b"other")
        assert_whole(fetch(served.url, tmp_path))


def test_a_new_version_on_the_server_is_fetched(tmp_path):
    with serving(Served(CONTENT)) as served:
        fetch(served.url, tmp_path)
        served.content, served.etag = CONTENT[::-1], '"v2"'
        assert_whole(fetch(served.url, tmp_path), CONTENT[::-1])


def test_the_server_names_the_file(tmp_path):
    names = {"Content-Disposition": "attachment; filename=\"x.csv\"; filename*=UTF-8''caf%C3%A9.csv"}
    with serving(Served(CONTENT, headers=names)) as served:
        assert fetch(served.url, tmp_path).path.name == "café.csv"


def test_a_name_that_leads_out_of_the_folder_does_not(tmp_path):
    names = {"Content-Disposition": 'attachment; filename="../../etc/passwd"'}
    with serving(Served(CONTENT, headers=names)) as served:
        assert fetch(served.url, tmp_path / "in").path == tmp_path / "in" / "passwd"


def cut_every_second(request: Answering, served: Served) -> bool:
    if len(served.asked) % 2 == 0:
        return False
    request.send_file(stop_after=1000)
    return True


def fail_every_second(request: Answering, served: Served) -> bool:
    if len(served.asked) % 2 == 0:
        return False
    request.answer(503)
    return True


def drop_every_third(request: Answering, served: Served) -> bool:
    if len(served.asked) % 3:
        return False
    request.connection.shutdown(socket.SHUT_RDWR)
    return True


def throttle_once(request: Answering, served: Served) -> bool:
    if len(served.asked) != 2:
        return False
    request.answer(429, Retry_After="0")
    return True


@pytest.mark.parametrize("fault", [cut_every_second, fail_every_second, drop_every_third, throttle_once])
def test_a_fault_that_passes_costs_only_its_part(tmp_path, fault):
    with serving(Served(CONTENT), fault) as served:
        assert_whole(fetch(served.url, tmp_path))


def change_between_ranges(request: Answering, served: Served) -> bool:
    if len(served.asked) == 5:
        served.content, served.etag = CONTENT[::-1], '"v2"'
    return served.etag == '"v1"' and one_part_at_first(request, served)


def test_a_file_that_changes_between_two_ranges_is_never_mixed(tmp_path):
    with serving(Served(CONTENT), change_between_ranges) as served:
        assert_whole(fetch(served.url, tmp_path), CONTENT[::-1])


def test_a_file_that_changes_all_the_time_is_given_up(tmp_path):
    def change(request: Answering, served: Served) -> bool:
        served.etag = f'"v{len(served.asked)}"'
        return one_part_at_first(request, served)

    with serving(Served(CONTENT), change) as served, pytest.raises(TryAgainError) as caught:
        fetch(served.url, tmp_path)
    assert caught.value.reason == "DatasetChanging"
    assert_nothing_finished(tmp_path)


def answer(status: int) -> Fault:
    def fault(request: Answering, served: Served) -> bool:
        request.answer(status)
        return True

    return fault


@pytest.mark.parametrize(
    ("status", "error", "reason"),
    [(401, NotPermittedError, "DatasetForbidden"), (403, NotPermittedError, "DatasetForbidden"),
     (404, DataError, "DatasetNotFound"), (410, DataError, "DatasetNotFound"), (418, DataError, "DatasetRefused"),
     (429, TryAgainError, "DatasetUnreachable"), (500, TryAgainError, "DatasetUnreachable")],
)  # fmt: skip
def test_a_refusal_names_the_status_and_never_the_query(tmp_path, status, error, reason):
    with serving(Served(CONTENT), answer(status)) as served, pytest.raises(error) as caught:
        fetch(served.url + "?sig=secret", tmp_path)
    assert caught.value.reason == reason
    assert str(status) in str(caught.value)
    assert "secret" not in str(caught.value)


def always_cut(request: Answering, served: Served) -> bool:
    start, _, _ = request.span()
    request.send_file(stop_after=0 if start >= 65536 else 65536)
    return True


def announce_more(request: Answering, served: Served) -> bool:
    served.ranges = False
    request.send_file(length=len(CONTENT) + 1000)
    return True


def another_range(request: Answering, served: Served) -> bool:
    request.send_response(206)
    request.send_header("ETag", '"v1"')
    request.send_header("Content-Range", f"bytes 7-{len(CONTENT) - 1}/{len(CONTENT)}")
    request.send_header("Content-Length", str(len(CONTENT) - 7))
    request.end_headers()
    request.close_connection = True
    return True


@pytest.mark.parametrize("fault", [always_cut, announce_more, another_range])
def test_a_server_that_never_sends_the_whole_leaves_nothing_finished(tmp_path, fault):
    with serving(Served(CONTENT), fault) as served, pytest.raises(TryAgainError) as caught:
        fetch(served.url, tmp_path)
    assert caught.value.reason == "DatasetCut"
    assert_nothing_finished(tmp_path)


def test_a_server_that_trickles_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(transfer, "SLOW_SECONDS", 0.2)
    monkeypatch.setattr(transfer, "ATTEMPTS", 1)
    monkeypatch.setattr(module, "ATTEMPTS", 1)

    def trickle(request: Answering, served: Served) -> bool:
        request.send_file(delay=0.02)
        return True

    with serving(Served(CONTENT), trickle) as served, pytest.raises(TryAgainError) as caught:
        fetch(served.url, tmp_path)
    assert caught.value.reason == "DatasetCut"


@pytest.mark.parametrize(
    ("target", "what"),
    [("http://169.254.169.254/latest/meta-data", "metadata"), ("http://[::ffff:169.254.169.254]/", "metadata"),
     ("http://metadata.google.internal/", "metadata"), ("ftp://example.com/x", "scheme"),
     ("file:///etc/passwd", "scheme")],
)  # fmt: skip
def test_a_redirect_to_a_forbidden_address_is_refused(tmp_path, target, what, monkeypatch):
    real = socket.getaddrinfo

    def resolve(host, *arguments, **options):
        return real("127.0.0.1" if "metadata" in str(host) else host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)

    def redirect(request: Answering, served: Served) -> bool:
        request.answer(302, Location=target)
        return True

    with serving(Served(CONTENT), redirect) as served, pytest.raises(DataError, match=what) as caught:
        fetch(served.url, tmp_path)
    assert caught.value.reason == "AddressForbidden"


def test_redirects_without_end_are_refused(tmp_path):
    def redirect(request: Answering, served: Served) -> bool:
        request.answer(302, Location=f"/{len(served.asked)}")
        return True

    with serving(Served(CONTENT), redirect) as served, pytest.raises(DataError, match="more than 5 times"):
        fetch(served.url, tmp_path)


def test_a_signed_address_that_expires_is_asked_for_anew(tmp_path):
    def expiring(request: Answering, served: Served) -> bool:
        if request.path == "/train.parquet":
            request.answer(302, Location=f"/signed-{len(served.asked)}")
            return True
        if request.path == "/signed-1" and one_part_at_first(request, served):
            return True
        if request.path == "/signed-1" and len(served.asked) > 8:
            request.answer(403)
            return True
        return False

    with serving(Served(CONTENT), expiring) as served:
        assert_whole(fetch(served.url, tmp_path))


def test_a_private_host_is_refused_where_only_public_ones_are_allowed(tmp_path):
    with serving(Served(CONTENT)) as served, pytest.raises(DataError, match="a private address"):
        download(served.url, tmp_path, Guard(private_hosts_allowed=False), 1 << 30, lambda have, total: None)
    assert served.asked == []


def test_a_name_that_resolves_anew_for_every_question_is_asked_once_per_connection(tmp_path, monkeypatch):
    """DNS re-binding: the first answer is a public address, the next one would be this machine."""
    answers = iter(["93.184.216.34", "127.0.0.1"])
    tried = []

    def resolve(host, port, *arguments, **options):
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (next(answers), port))]

    def connect(address, *arguments, **options):
        tried.append(address[0])
        raise OSError("not in a test")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    monkeypatch.setattr(socket, "create_connection", connect)
    monkeypatch.setattr(module, "ATTEMPTS", 1)
    with pytest.raises(TryAgainError):
        download("http://example.com/x", tmp_path, Guard(private_hosts_allowed=False), 1, lambda have, total: None)
    assert tried == ["93.184.216.34"]


def test_a_fragment_with_the_right_digest_passes(tmp_path):
    with serving(Served(CONTENT)) as served:
        assert_whole(fetch(f"{served.url}#sha256={digest(CONTENT)}", tmp_path))


def test_a_wrong_digest_is_refused_and_nothing_is_kept(tmp_path):
    with serving(Served(CONTENT)) as served, pytest.raises(DataError) as caught:
        fetch(f"{served.url}#sha256={digest(b'other')}", tmp_path)
    assert caught.value.reason == "ChecksumMismatch"
    assert digest(CONTENT) in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize("length", [True, False])
def test_a_file_over_the_limit_is_refused(tmp_path, ranges, length):
    def unannounced(request: Answering, served: Served) -> bool:
        request.send_response(200)
        request.send_header("Connection", "close")
        request.end_headers()
        request.wfile.write(CONTENT)
        request.close_connection = True
        return True

    with serving(Served(CONTENT, ranges=ranges), healthy if length else unannounced) as served:
        with pytest.raises(DataError) as caught:
            fetch(served.url, tmp_path, limit=1000)
        assert caught.value.reason == "DatasetTooLarge"
    assert_nothing_finished(tmp_path)


def test_a_file_that_does_not_fit_the_disk_is_refused_before_it_is_fetched(tmp_path, monkeypatch):
    monkeypatch.setattr(module.shutil, "disk_usage", lambda folder: _Usage())
    with serving(Served(CONTENT)) as served, pytest.raises(UnavailableError) as caught:
        fetch(served.url, tmp_path)
    assert caught.value.reason == "DiskFull"
    assert len(served.asked) == 1


class _Usage:
    free = module.RESERVE_BYTES + 1000


def test_a_killed_download_goes_on_where_it_stopped(tmp_path):
    def slow(request: Answering, served: Served) -> bool:
        time.sleep(0.05)
        return one_part_at_first(request, served)

    code = (
        "import sys; from pathlib import Path; from steps import transfer; from steps.download import download;"
        "from steps.connections import Guard; transfer.PART_BYTES = (65536, 65536); transfer.CONNECTIONS = 2;"
        "download(sys.argv[1], Path(sys.argv[2]), Guard(True), 1 << 30, lambda have, total: None)"
    )
    with serving(Served(CONTENT), slow) as served:
        process = subprocess.Popen([sys.executable, "-c", code, served.url, str(tmp_path)], cwd=ROOT)
        journal = tmp_path / ".train.parquet.journal"
        while not journal.exists() or journal.read_text().count("\n") < 6:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        time.sleep(0.2)  # what it had asked for last has been noted by then
        assert_nothing_finished(tmp_path)
        done = journal.read_text().count("\n") - 1
        served.asked.clear()
        assert_whole(fetch(served.url, tmp_path))
    assert len(served.asked) <= 1 + 16 - done


def test_parts_of_another_version_are_not_used_after_a_kill(tmp_path):
    with serving(Served(CONTENT), always_cut) as served, pytest.raises(KaiflowError):
        fetch(served.url, tmp_path)
    assert (tmp_path / ".train.parquet.journal").exists()
    with serving(Served(CONTENT[::-1], '"v2"')) as served:
        assert_whole(fetch(served.url, tmp_path), CONTENT[::-1])
