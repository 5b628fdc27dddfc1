"""How long is it until the next try?"""

import datetime as dt
from email.utils import format_datetime

import pytest

from steps import backoff


@pytest.fixture
def slept(monkeypatch):
    """Return the list that waits are noted in."""
    found = []
    monkeypatch.setattr(backoff.time, "sleep", found.append)
    return found


def test_it_is_as_long_as_the_server_says_but_never_longer_than_the_bound(slept):
    backoff.pause(0, "7")
    backoff.pause(0, "86400")
    assert slept == [7.0, backoff.LONGEST_WAIT_SECONDS]


def test_a_date_is_waited_for(slept):
    backoff.pause(0, format_datetime(dt.datetime.now(dt.UTC) + dt.timedelta(seconds=30), usegmt=True))
    backoff.pause(0, "Wed, 21 Oct 2015 07:28:00 GMT")
    assert 25 < slept[0] <= 30
    assert slept[1] == 0.0


@pytest.mark.parametrize("said", ["", "soon", "-1"])
def test_without_words_of_the_servers_it_grows(slept, said):
    for attempt in range(4):
        backoff.pause(attempt, said)
    assert 0.25 <= slept[0] <= 0.75
    assert 2.0 <= slept[3] <= 6.0
