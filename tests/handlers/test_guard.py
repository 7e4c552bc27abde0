import asyncio
import threading
from typing import Any

import msgspec
import pydantic
import pytest

from headrace.handlers.attempt import Attempt, current_attempt
from headrace.handlers.breaker import Breaker
from headrace.handlers.definition import handler
from headrace.handlers.result import AttemptError, AttemptOk, AttemptResult
from headrace.handlers.retry import Retry
from headrace.topics.errors import Cause, NonRetryable, Retryable
from headrace.topics.trace_context import attempt_traceparent
from tests.handlers.calls import RESULT_BYTES_MAX, Watched, call_of
from tests.handlers.virtual_loop import run


class Stock(pydantic.BaseModel):
    sku: str
    left: int


class Line(msgspec.Struct):
    sku: str


def made(definition: Any, *args: object, **fields: Any) -> AttemptResult:
    """One attempt on a loop of its own, whose clock jumps where no thread has to be waited for."""

    async def main() -> AttemptResult:
        return await Watched().guard.invoke(definition, call_of(definition, *args, **fields))

    return run(main()) if definition.is_async else asyncio.run(main())


def failed(definition: Any, *args: object, **fields: Any) -> AttemptError:
    result = made(definition, *args, **fields)
    assert isinstance(result, AttemptError)
    return result


@handler
async def find(line: Line, left: int) -> Stock:
    await asyncio.sleep(0.25)
    return Stock(sku=line.sku, left=left)


def test_what_it_returns_is_encoded() -> None:
    assert made(find, Line("a"), 3) == AttemptOk(b'{"sku":"a","left":3}', 250.0)


def test_the_handler_sees_its_attempt() -> None:
    seen: list[Attempt] = []

    @handler
    async def look() -> None:
        seen.append(current_attempt())

    @handler
    def look_in_thread() -> None:
        seen.append(current_attempt())

    async def main() -> None:
        guard = Watched().guard
        for each in (look, look_in_thread):
            call = call_of(
                each,
                number=3,
                task="/1/t",
                anchor="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
                tracestate="x=1",
            )
            assert isinstance(await guard.invoke(each, call), AttemptOk)
        with pytest.raises(LookupError):
            current_attempt()

    asyncio.run(main())
    expected = Attempt(
        idempotency_key="key-1",
        number=3,
        run_id="3.abc",
        task="/1/t",
        deadline_ms=1_795_257_002_000,
        anchor="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        tracestate="x=1",
    )
    assert seen == [expected, expected]
    assert expected.traceparent == attempt_traceparent("3.abc", "/1/t", 3, expected.anchor)


def raising(error: BaseException, **policies: Any) -> Any:
    @handler(name="raising", **policies)
    async def raises() -> None:
        raise error

    return raises


@pytest.mark.parametrize(
    ("error", "name", "message", "retryable"),
    [
        (ValueError("no\nstock"), "ValueError", "no\\nstock", True),
        (TimeoutError("theirs"), "TimeoutError", "theirs", True),
        (SystemExit(3), "SystemExit", "3", True),
        (KeyboardInterrupt(), "KeyboardInterrupt", "", True),
        (GeneratorExit(), "GeneratorExit", "", True),
        (NonRetryable("never"), "headrace.topics.errors.NonRetryable", "never", False),
        (ExceptionGroup("two", [ValueError()]), "ExceptionGroup", "two (1 sub-exception): ValueError: ", True),
    ],
)
def test_whatever_it_raises_becomes_a_value(error: BaseException, name: str, message: str, retryable: bool) -> None:
    result = failed(raising(error))
    assert result.cause is Cause.RAISED
    assert (result.error, result.message, result.retryable) == (name, message, retryable)
    assert result.retry_after_ms is None


def test_stop_iteration_is_an_error_like_any_other() -> None:
    assert failed(raising(StopIteration())).error == "RuntimeError"


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), ValueError("x")])
def test_threads_raise_the_same(error: BaseException) -> None:
    @handler
    def raises() -> None:
        raise error

    result = failed(raises)
    assert (result.cause, result.error) == (Cause.RAISED, type(error).__name__)


def test_a_wait_that_it_asks_for_is_handed_on() -> None:
    assert failed(raising(Retryable("later", after="3s"))).retry_after_ms == 3_000


def test_a_wait_that_is_no_duration_does_not_hide_the_failure() -> None:
    result = failed(raising(Retryable("later", after="soon")))
    assert result.retryable
    assert result.retry_after_ms is None
    assert result.message.startswith("later (Retryable.after='soon'")


def test_errors_that_the_breaker_ignores_are_marked() -> None:
    breaker = Breaker("b", ignore=(KeyError,))
    assert failed(raising(KeyError(), breaker=breaker)).ignored_by_breaker
    assert not failed(raising(ValueError(), breaker=breaker)).ignored_by_breaker
    assert not failed(raising(KeyError())).ignored_by_breaker


@handler
async def hangs() -> None:
    await asyncio.get_running_loop().create_future()


def test_its_time_is_bounded() -> None:
    result = failed(hangs, timeout_ms=700)
    assert (result.cause, result.error, result.retryable) == (Cause.TIMED_OUT, "TimeoutError", True)
    assert result.message == "hangs gave no result within 700 ms"
    assert result.duration_ms == pytest.approx(700)


def test_a_deadline_of_its_retry_is_another_cause_and_final() -> None:
    result = failed(hangs, timeout_ms=700, cause_on_timeout=Cause.DEADLINE)
    assert (result.cause, result.retryable) == (Cause.DEADLINE, False)


def test_whether_a_timeout_is_retried_is_asked_of_its_retry() -> None:
    @handler(retry=Retry(on=(ConnectionError,)))
    async def picky() -> None:
        await asyncio.sleep(10**6)

    assert not failed(picky).retryable


def test_what_it_says_after_its_time_is_over_comes_too_late() -> None:
    @handler
    async def late(how: str) -> str:
        try:
            await asyncio.sleep(10**6)
        except asyncio.CancelledError:
            if how == "raise":
                raise ValueError("mine") from None
        return "late"

    assert failed(late, "raise").cause is Cause.TIMED_OUT
    assert failed(late, "return").cause is Cause.TIMED_OUT


def test_a_timeout_leaves_no_cancellation_behind() -> None:
    async def main() -> int:
        await Watched().guard.invoke(hangs, call_of(hangs))
        task = asyncio.current_task()
        assert task is not None
        return task.cancelling()

    assert run(main()) == 0


def test_cancelling_itself_is_a_failure() -> None:
    result = failed(raising(asyncio.CancelledError()))
    assert (result.cause, result.retryable) == (Cause.CANCELLED_ITSELF, True)


@pytest.mark.parametrize("how", ["pass it on", "fail meanwhile"])
def test_only_the_owners_cancellation_is_raised(how: str) -> None:
    @handler
    async def waits() -> None:
        try:
            await asyncio.sleep(10**6)
        except asyncio.CancelledError:
            if how == "fail meanwhile":
                raise ValueError from None
            raise

    async def main() -> None:
        guard = Watched().guard
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(guard.invoke(waits, call_of(waits, timeout_ms=10**8)))
            await asyncio.sleep(1)
            task.cancel()
        assert task.cancelled()

    run(main())


def bad_results() -> dict[str, object]:
    cycle: list[object] = []
    cycle.append(cycle)
    return {
        "set": {1},
        "nested set": {"a": [{1}]},
        "nan": float("nan"),
        "object": object(),
        "cycle": cycle,
        "surrogate": "\ud800",
        "class": ValueError,
        "number keys": {1: 1},
    }


@pytest.mark.parametrize("kind", sorted(bad_results()))
def test_a_result_that_cannot_be_written_is_a_failure_that_no_retry_follows(kind: str) -> None:
    @handler
    async def returns() -> Any:
        return bad_results()[kind]

    result = failed(returns)
    assert (result.cause, result.retryable) == (Cause.BAD_RESULT, False)
    assert result.error == "headrace.handlers.payload.PayloadError"


@pytest.mark.parametrize("value", [{"sku": "a", "left": 1}, None, Line("a"), [Stock(sku="a", left=1)]])
def test_a_result_of_another_type_than_promised_is_a_bad_result(value: Any) -> None:
    @handler
    async def returns() -> Stock:
        return value

    assert failed(returns).cause is Cause.BAD_RESULT


def test_a_result_over_the_limit_is_a_failure_with_both_numbers() -> None:
    @handler
    async def returns(size: int) -> str:
        return "a" * size

    assert isinstance(made(returns, RESULT_BYTES_MAX - 2), AttemptOk)
    result = failed(returns, 5_000_000)
    assert (result.cause, result.retryable) == (Cause.TOO_LARGE, False)
    assert "5000002 bytes" in result.message
    assert f"{RESULT_BYTES_MAX} bytes" in result.message


def test_a_synchronous_function_that_returns_a_coroutine_is_told_apart() -> None:
    @handler
    def forgot():  # noqa: ANN202
        return find.function(Line("a"), 1)

    assert failed(forgot).cause is Cause.BAD_RESULT


def test_arguments_that_do_not_fit_are_a_failure_that_says_nothing_about_the_callee() -> None:
    result = failed(find, Line("a"), 1, arguments=b'[{"sku":1},1]')
    assert (result.cause, result.retryable, result.ignored_by_breaker) == (Cause.RAISED, False, True)
    assert "line.sku" in result.message


def test_a_thread_that_outlives_its_time_is_given_up_and_named() -> None:
    gate = threading.Event()

    @handler
    def blocks() -> None:
        gate.wait()

    async def main() -> None:
        watched = Watched(threads=1)
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(watched.guard.invoke(blocks, call_of(blocks, run_id="3.first")))
            while watched.threads.statistics().busy == 0:
                await asyncio.sleep(0)
        assert timed_out(task.result())
        assert [(each.handler, each.run_id, each.in_thread) for each in watched.abandoned] == [
            ("blocks", "3.first", True)
        ]
        assert watched.abandoned[0].place == blocks.place
        assert watched.threads.statistics().abandoned == 1

        # The only thread is taken: the next never begins, so nothing of it is left behind.
        assert timed_out(await watched.guard.invoke(blocks, call_of(blocks)))
        assert len(watched.abandoned) == 1

        gate.set()
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(watched.guard.invoke(blocks, call_of(blocks)))
            while not task.done():
                await asyncio.sleep(0)
        assert isinstance(task.result(), AttemptOk)
        assert watched.threads.statistics().abandoned == 0
        watched.threads.close()

    run(main())


def timed_out(result: AttemptResult) -> bool:
    return isinstance(result, AttemptError) and result.cause is Cause.TIMED_OUT


def test_a_deep_stack_of_the_handlers_own_is_its_error() -> None:
    @handler
    async def recurses() -> None:
        def again() -> None:
            again()

        again()

    result = failed(recurses)
    assert result.error == "RecursionError"
