"""Grammar of names: images, labels, cron, addresses."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from presets.addresses import is_metadata, is_private, literal_address, without_query
from presets.names import cron_problem, is_dns_label, is_dns_subdomain, parse_image, placeholders


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("ubuntu", ("", "ubuntu", "", "")),
        ("team/app:1", ("", "team/app", "1", "")),
        ("registry.example.com/team/app:1.0", ("registry.example.com", "team/app", "1.0", "")),
        ("localhost:5000/app", ("localhost:5000", "app", "", "")),
        ("r.io/a@sha256:" + "a" * 64, ("r.io", "a", "", "sha256:" + "a" * 64)),
    ],
)
def test_image_references_are_taken_apart(text, parts):
    reference = parse_image(text)
    assert reference is not None
    assert (reference.registry, reference.repository, reference.tag, reference.digest) == parts


@pytest.mark.parametrize(
    "text", ["", "team/App", "a//b", "a:", "a b", "r.io/a:ta g", "r.io/-a", "https://r.io/a", "a@sha256:12"]
)
def test_what_is_no_image_reference(text):
    assert parse_image(text) is None


@given(st.text(max_size=40))
def test_any_text_is_judged_without_a_crash(text):
    assert isinstance(is_dns_label(text), bool)
    assert isinstance(is_dns_subdomain(text), bool)
    assert isinstance(is_private(text), bool)
    assert isinstance(without_query(text), str)
    cron_problem(text)
    parse_image(text)
    placeholders(text)


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.1", "0x7f.1", "2130706433", "017700000001", "::1", "10.1.2.3", "192.168.1.1", "0.0.0.0"]
)
def test_private_addresses_in_every_form(host):
    assert is_private(host)


@pytest.mark.parametrize(
    "host", ["169.254.169.254", "METADATA.google.internal", "metadata.google.internal.", "2852039166", "fd00:ec2::254"]
)
def test_metadata_endpoints_in_every_form(host):
    assert is_metadata(host)


@pytest.mark.parametrize("host", ["example.com", "8.8.8.8", "2606:4700::1111", "a.b", "1.2.3.4.5"])
def test_public_hosts(host):
    assert not is_private(host)
    assert not is_metadata(host)


def test_a_name_is_no_address():
    assert literal_address("example.com") is None


@pytest.mark.parametrize("cron", ["* * * * *", "*/5 1-3 1,15 * SUN", "0 0 1 JAN ?", "@daily", "@every 12h"])
def test_cron_that_argo_takes(cron):
    assert cron_problem(cron) is None


@pytest.mark.parametrize(
    "cron",
    [
        "",
        "* * * *",
        "60 * * * *",
        "* * 0 * *",
        "a * * * *",
        "*/0 * * * *",
        "5-1 * * * *",
        "@often",
        "@every x",
        "0 3 * * 7",
        "@every 0s",
    ],
)
def test_cron_that_argo_refuses(cron):
    assert cron_problem(cron)
