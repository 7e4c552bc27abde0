"""A service in this process: its event loop, its signals, its first lines, and the feed of a demo.

The first SIGINT, SIGTERM or SIGHUP stops in good order; the second leaves at once with exit code 130, which the log survives.
"""

from __future__ import annotations

import asyncio
import gc
import os
import sys
from typing import TYPE_CHECKING, NoReturn

from headrace.handlers.loop_stop import refuse_stop_to_handlers
from headrace.service.cli.exit_code import ExitCode
from headrace.service.cli.option import warn
from headrace.service.cli.output import counted
from headrace.service.composition import Started, load_history, serve
from headrace.service.definitions.definition_code import FEED_INVALID
from headrace.service.sd_notify import SdNotify
from headrace.service.settings import Backend
from headrace.service.stop_signal import stop_signals
from headrace.service.worker_link import Supervised, WorkerStarted
from headrace.topics.error_group import first_error
from headrace.topics.errors import SettingsError
from headrace.topics.log import TopicMissing

if TYPE_CHECKING:
    from collections.abc import Callable

    from headrace.service.cli.demo_report import DemoReport
    from headrace.service.cli.serving import Serving
    from headrace.service.definitions.app import App
    from headrace.service.settings import Settings


class Process:
    """Runs one service; made for one `run`. Raises SettingsError if an app without a feed is to be fed."""

    def __init__(self, settings: Settings, app: App, serving: Serving) -> None:
        if serving.feed is not None and app.feed is None:
            raise SettingsError(
                f"{app.name} has no feed.",
                code=FEED_INVALID,
                why="--feed publishes what the app's async generator `feed(seed)` yields.",
                do="Write one, or start without --feed.",
            )
        self._settings = settings
        self._app = app
        self._serving = serving
        self._report = _demo_report() if serving.report else None
        self._signals = 0
        self._notify = SdNotify.from_environment()

    def run(self) -> ExitCode:
        """Serve until a signal, or until what a limited feed has made is worked off."""
        _calm_the_collector()
        load_history(self._settings)
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            refuse_stop_to_handlers(runner.get_loop())
            try:
                attempts_left = runner.run(self._serve())
            except TopicMissing as error:
                raise SettingsError(error.message, code=error.code, why=error.why, do=error.do) from None
            if attempts_left:  # threads and coroutines that nobody can end: Python would wait for them
                _leave(ExitCode.OK)
        if self._report is not None:
            self._report.show()
        return ExitCode.OK

    async def _serve(self) -> int:
        stop, ready = asyncio.Event(), asyncio.Event()
        self._catch_signals(stop)
        supervised = self._supervised()

        def started(facts: Started) -> None:
            self._say_started(facts)
            if self._serving.worker is not None:
                self._serving.worker.report(WorkerStarted(metrics=facts.metrics_url, instance=facts.instance))
            self._notify.ready(f"{self._app.name}, metrics at {facts.metrics_url}")
            ready.set()

        try:
            async with asyncio.TaskGroup() as group:
                feeding = group.create_task(self._feeding(ready, stop))
                alive = group.create_task(self._notify.keep_alive())
                try:
                    return await serve(
                        self._settings,
                        self._app,
                        stop=stop,
                        create_topics=self._serving.create_topics,
                        console=self._serving.lines,
                        started=started,
                        observers=[] if self._report is None else [self._report],
                        supervised=supervised,
                    )
                finally:
                    feeding.cancel()
                    alive.cancel()
        except BaseExceptionGroup as errors:
            raise first_error(errors) from None

    def _supervised(self) -> Supervised | None:
        """From now on this process ends with its supervisor, and hears from it when the group has changed."""
        worker = self._serving.worker
        if worker is None:
            return None
        loop, changed = asyncio.get_running_loop(), asyncio.Event()

        def hinted() -> None:
            try:
                loop.call_soon_threadsafe(changed.set)
            except RuntimeError:  # the loop has ended
                pass

        worker.watch(hinted, self._settings.worker.shutdown_grace_ms / 1000)
        return Supervised(index=worker.index, group_changed=changed, discovery=worker.discovery)

    async def _feeding(self, ready: asyncio.Event, stop: asyncio.Event) -> None:
        feed = self._serving.feed
        if feed is None:
            return
        from headrace.service.cli.feed import publish_feed, worked_off

        await ready.wait()
        published = await publish_feed(self._settings, self._app, seed=feed.seed, limit=feed.limit)
        warn(f"{counted(published, 'event')} published; waiting for their runs.")
        await worked_off(self._settings, self._app.source_topics)
        stop.set()

    def _catch_signals(self, stop: asyncio.Event) -> None:
        loop = asyncio.get_running_loop()
        for number in stop_signals():
            loop.add_signal_handler(number, self._signalled, stop)

    def _signalled(self, stop: asyncio.Event) -> None:
        self._signals += 1
        if self._signals > 1:
            _leave(ExitCode.INTERRUPTED)
        grace_s = self._settings.worker.shutdown_grace_ms / 1000
        stop.set()
        self._notify.stopping()
        warn(f"Stopping in good order, within {grace_s:g} s; once more leaves at once.")

    def _say_started(self, facts: Started) -> None:
        app, settings = self._app, self._settings
        workflows = ", ".join(sorted({workflow.name for workflow in app.workflows})) or "none"
        warn(f"Headrace runs {app.name} as {settings.app.name}: workflows {workflows}")
        place = facts.log if settings.log.backend is Backend.EMBEDDED else f"Kafka at {facts.log}"
        warn(f"  log      {place}")
        if facts.api_url:
            warn(f"  console  {facts.api_url}")
        warn(f"  metrics  {facts.metrics_url}")
        if app.source_topics:
            warn(f"  reads    {', '.join(app.source_topics)}")
        if app.emitted_topics:
            warn(f"  writes   {', '.join(app.emitted_topics)}")
        if facts.topics_made:
            warn(f"  made     {', '.join(facts.topics_made)}")


def _leave(code: ExitCode) -> NoReturn:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            pass
    os._exit(code)


def _calm_the_collector() -> None:
    """Thousands of live runs are not garbage:

    looking through them every 700 allocations took half of the time (docs/performance.md).
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """The faster loop, where it is installed."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


def _demo_report() -> DemoReport:
    from headrace.service.cli.demo_report import DemoReport

    return DemoReport()
