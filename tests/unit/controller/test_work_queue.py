"""Keys, each once, by one worker at a time, again after a failure."""

import asyncio

import pytest

from controller.work_queue import WorkQueue

A, B = ("n", "a"), ("n", "b")


async def worked(queue, seconds=0.2, workers=4):
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(queue.run(workers), seconds)


def test_a_key_that_comes_often_is_worked_on_once():
    seen = []

    async def work(key):
        seen.append(key)

    async def main():
        queue = WorkQueue(work)
        for key in (A, A, B, A):
            queue.add(key)
        assert len(queue) == 2
        await worked(queue)

    asyncio.run(main())
    assert seen == [A, B]


def test_a_key_that_comes_while_it_is_worked_on_is_worked_on_once_more_and_never_twice_at_once():
    running, most, count = 0, 0, 0

    async def main():
        async def work(key):
            nonlocal running, most, count
            running, count = running + 1, count + 1
            most = max(most, running)
            for _ in range(3):
                queue.add(key) if count == 1 else None
                await asyncio.sleep(0.01)
            running -= 1

        queue = WorkQueue(work)
        queue.add(A)
        await worked(queue)

    asyncio.run(main())
    assert (most, count) == (1, 2)


def test_a_failure_is_tried_again_and_told_and_keeps_nobody_else_from_work():
    seen, told = [], []

    async def work(key):
        seen.append(key)
        if key == A and seen.count(A) < 2:
            raise ValueError("no")

    async def main():
        queue = WorkQueue(work, lambda key, error: told.append((key, str(error))))
        queue.add(A)
        queue.add(B)
        await worked(queue, 0.8)

    asyncio.run(main())
    assert seen == [A, B, A]
    assert told == [(A, "no")]


def test_of_several_later_looks_the_soonest_counts():
    times = []

    async def main():
        began = asyncio.get_running_loop().time()

        async def work(key):
            times.append(asyncio.get_running_loop().time() - began)

        queue = WorkQueue(work)
        for seconds in (0.3, 0.05, 0.2):
            queue.add(A, seconds)
        await worked(queue, 0.5)

    asyncio.run(main())
    assert len(times) == 1
    assert 0.04 < times[0] < 0.19


def test_what_comes_within_a_moment_is_begun_together_and_each_key_once():
    seen = []

    async def work(key):
        seen.append(key)

    async def main():
        queue = WorkQueue(work, gather_seconds=0.5)  # long enough for a machine that is busy
        working = asyncio.create_task(worked(queue, 2.5))
        for key in (A, B, A, A):
            queue.add(key)
            await asyncio.sleep(0.005)
        assert not seen
        await asyncio.sleep(0.7)
        assert seen == [A, B]
        queue.add(A)
        await working

    asyncio.run(main())
    assert seen == [A, B, A]
