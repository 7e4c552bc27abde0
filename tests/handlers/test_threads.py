import asyncio
import contextvars
import threading

import pytest

from headrace.handlers.threads import HandlerThreads, ThreadJob


async def until_busy(threads: HandlerThreads, busy: int) -> None:
    while threads.statistics().busy != busy:
        await asyncio.sleep(0)


async def test_a_call_runs_in_a_daemon_thread_with_the_callers_context() -> None:
    threads = HandlerThreads(1)
    variable: contextvars.ContextVar[int] = contextvars.ContextVar("variable")
    variable.set(7)
    thread, value = await threads.submit(lambda: (threading.current_thread(), variable.get())).result()
    assert thread.daemon
    assert thread is not threading.current_thread()
    assert value == 7
    threads.close()


@pytest.mark.parametrize("error", [ValueError("x"), SystemExit(3), KeyboardInterrupt(), GeneratorExit()])
async def test_what_it_raises_arrives(error: BaseException) -> None:
    def fail() -> None:
        raise error

    threads = HandlerThreads(1)
    caught: BaseException | None = None
    try:
        await threads.submit(fail).result()
    except BaseException as arrived:
        caught = arrived
    assert caught is error
    assert await threads.submit(lambda: 1).result() == 1  # the thread lives on
    threads.close()


async def test_stop_iteration_arrives_as_the_error_it_is() -> None:
    threads = HandlerThreads(1)
    with pytest.raises(RuntimeError, match="StopIteration"):
        await threads.submit(lambda: next(iter(()))).result()
    threads.close()


async def test_no_more_threads_run_than_its_size_and_jobs_start_in_order() -> None:
    threads = HandlerThreads(2)
    gate = threading.Event()
    order: list[int] = []

    def work(number: int) -> int:
        order.append(number)
        gate.wait()
        return number

    jobs = [threads.submit(lambda number=number: work(number)) for number in range(6)]
    await until_busy(threads, 2)
    shown = threads.statistics()
    assert (shown.size, shown.busy, shown.waiting, shown.abandoned) == (2, 2, 4, 0)
    gate.set()
    assert [await job.result() for job in jobs] == list(range(6))
    assert sorted(order[:2]) == [0, 1]
    threads.close()


async def test_an_abandoned_thread_stays_counted_until_it_ends() -> None:
    threads = HandlerThreads(1)
    gate = threading.Event()
    job = threads.submit(gate.wait)
    await until_busy(threads, 1)
    assert threads.abandon(job)
    after = threads.submit(lambda: "next")
    shown = threads.statistics()
    assert (shown.busy, shown.waiting, shown.abandoned) == (1, 1, 1)
    gate.set()
    assert await after.result() == "next"
    await until_busy(threads, 0)
    assert threads.statistics().abandoned == 0
    threads.close()


async def test_a_job_that_is_abandoned_before_it_began_never_runs() -> None:
    threads = HandlerThreads(1)
    gate = threading.Event()
    ran: list[int] = []
    first: ThreadJob = threads.submit(gate.wait)
    await until_busy(threads, 1)
    second = threads.submit(lambda: ran.append(2))
    third = threads.submit(lambda: ran.append(3))
    assert not threads.abandon(second)
    assert threads.statistics().waiting == 1
    gate.set()
    await first.result()
    await third.result()
    assert not threads.abandon(third)
    assert ran == [3]
    threads.close()


async def test_closed_threads_take_no_more() -> None:
    threads = HandlerThreads(1)
    threads.close()
    with pytest.raises(RuntimeError, match="closed"):
        threads.submit(lambda: 1)


def test_a_thread_that_ends_after_its_loop_harms_nobody() -> None:
    threads = HandlerThreads(1)
    gate = threading.Event()

    async def begin() -> None:
        job = threads.submit(gate.wait)
        await until_busy(threads, 1)
        threads.abandon(job)

    asyncio.run(begin())
    gate.set()

    async def again() -> str:
        return await threads.submit(lambda: "fine").result()

    assert asyncio.run(again()) == "fine"
    threads.close()
