"""The live copy against an API server that cuts, forgets and falls silent."""

import asyncio
import json

import pytest
from aiohttp import ClientSession, web

from controller import reflector as module
from controller.kube_api import Api
from controller.kube_login import Login
from controller.reflector import Reflector

PATH = "/apis/kaito.sh/v1beta1/workspaces"


def body(name, version, **fields):
    return {"metadata": {"namespace": "n", "name": name, "resourceVersion": str(version)}, **fields}


class Server:
    """Lists what ``items`` holds; each watch is answered by the next of ``watches``, a list of lines or a status."""

    def __init__(self, items, watches=(), later=()):
        self.items, self.version, self.watches, self.later = items, 10, list(watches), list(later)
        self.asked = []
        self.written = []  # by us, while a list is on its way
        self.while_listing = list

    async def answer(self, request):
        self.asked.append(dict(request.query))
        if "watch" not in request.query:
            self.while_listing()
            return web.json_response({"metadata": {"resourceVersion": str(self.version)}, "items": self.items})
        told = self.watches.pop(0) if self.watches else "silence"
        self.items = self.later or self.items
        if isinstance(told, int):
            return web.json_response({"message": "too old", "code": told}, status=told)
        response = web.StreamResponse()
        await response.prepare(request)
        if told == "silence":
            await asyncio.sleep(30)
            return response
        for line in told:
            await response.write(json.dumps(line).encode() + b"\n")
            await asyncio.sleep(0.01)
        return response


async def watched(server, seconds):
    """Return the reflector after a while, and what it has told."""
    app = web.Application()
    app.add_routes([web.get(PATH, server.answer)])
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    told = []

    async def headers():
        return {}

    login = Login(f"http://127.0.0.1:{runner.addresses[0][1]}", ClientSession(), headers, "n")
    async with Api(login) as api:
        found = Reflector(api, PATH, lambda o: o, lambda old, new: told.append((name(old), name(new))))
        server.while_listing = lambda: [found.remember(written) for written in server.written]
        task = asyncio.create_task(found.run())
        await asyncio.sleep(seconds)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    await runner.cleanup()
    return found, told


def name(body):
    return body and f"{body['metadata']['name']}{body['metadata']['resourceVersion']}"


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(module, "SHORTEST_PAUSE_SECONDS", 0.02)
    monkeypatch.setattr(module, "SILENCE_SECONDS", 0.3)


def test_changes_come_and_bookmarks_keep_the_place():
    events = [
        {"type": "ADDED", "object": body("b", 11)},
        {"type": "MODIFIED", "object": body("a", 12)},
        {"type": "DELETED", "object": body("b", 13)},
        {"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "40"}}},
    ]
    server = Server([body("a", 5)], [events])
    found, told = asyncio.run(watched(server, 0.3))
    assert told == [(None, "a5"), (None, "b11"), ("a5", "a12"), ("b11", None)]
    assert [o["metadata"]["name"] for o in found.objects.values()] == ["a"]
    assert server.asked[2]["resourceVersion"] == "40"
    assert found.relists == 1


@pytest.mark.parametrize(
    "gone", [410, [{"type": "ERROR", "object": {"code": 410, "message": "expired"}}]], ids=["at once", "as an event"]
)
def test_a_place_that_is_too_old_is_listed_anew_and_compared(gone):
    server = Server([body("a", 5), body("gone", 6)], [gone], later=[body("a", 5), body("new", 7)])
    found, told = asyncio.run(watched(server, 0.4))
    assert found.relists == 2
    assert {("gone6", None), (None, "new7")} <= set(told)
    assert told.count((None, "a5")) == 1


def test_a_connection_that_falls_silent_is_left():
    server = Server([], ["silence", [{"type": "ADDED", "object": body("a", 11)}]])
    _, told = asyncio.run(watched(server, 0.9))
    assert told == [(None, "a11")]


def test_an_object_longer_than_a_buffer_comes_whole():
    big = body("big", 11, spec="x" * 3_000_000)
    found, _ = asyncio.run(watched(Server([], [[{"type": "ADDED", "object": big}]]), 0.5))
    assert len(found.objects["n", "big"]["spec"]) == 3_000_000


def test_what_a_write_has_returned_is_not_told_again_and_nothing_older_stands_above_it():
    async def main():
        server = Server([body("a", 5)])
        found, told = await watched(server, 0.1)
        found.remember(body("a", 9))
        found.remember(body("a", 7))
        found.remember(body("a", 11), quiet=True)
        return found, told

    found, told = asyncio.run(main())
    assert told == [(None, "a5"), ("a5", "a9")]
    assert found.objects["n", "a"]["metadata"]["resourceVersion"] == "11"


def test_what_is_written_while_a_list_is_on_its_way_is_not_taken_for_gone():
    server = Server([body("a", 5), body("b", 6)])
    server.written = [body("new", 12), body("a", 11)]
    found, told = asyncio.run(watched(server, 0.1))
    assert sorted(map(name, found.objects.values())) == ["a11", "b6", "new12"]
    assert ("new12", None) not in told


def test_a_server_that_always_says_too_old_is_not_asked_without_a_pause():
    server = Server([body("a", 5)], [410] * 1000)
    found, _ = asyncio.run(watched(server, 0.5))
    assert 2 <= found.relists <= 10


def test_a_kind_that_the_server_does_not_know_is_empty_and_known_to_be_so():
    class Without(Server):
        async def answer(self, request):
            return web.json_response({"message": "not found"}, status=404)

    found, told = asyncio.run(watched(Without([]), 0.2))
    assert (found.known, found.synced.is_set(), told) == (False, True, [])


def copy_of():
    return Reflector(None, PATH, lambda o: o, lambda old, new: None)  # type: ignore[arg-type]


def test_an_answer_that_comes_after_the_end_revives_nothing():
    """The PATCH that removes a finalizer, and the event that the object is gone, come on two connections."""
    found = copy_of()
    living = body("a", 4)
    living["metadata"]["uid"] = "u-1"
    found._put(living)
    found._forget({"metadata": {**living["metadata"], "resourceVersion": "6"}})
    found.remember({"metadata": {**living["metadata"], "resourceVersion": "5"}})
    assert found.objects == {}
    again = {"metadata": {**living["metadata"], "uid": "u-2", "resourceVersion": "9"}}
    found.remember(again)  # another of its name
    assert list(found.objects.values()) == [again]


def test_an_event_of_before_a_write_does_not_turn_the_copy_back():
    found = copy_of()
    for version in (3, 5, 4):
        found._put(body("a", version))
    assert [o["metadata"]["resourceVersion"] for o in found.objects.values()] == ["5"]
