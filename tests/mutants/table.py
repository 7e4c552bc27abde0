"""The safeguards, each with the patch that switches it off. The exact text must be found once, else the table is out of date and says so.

The numbers are those of the design's table; S stands for one that is not in it. M24 is of the HTTP API.
"""

from typing import NamedTuple


class Mutant(NamedTuple):
    """`test`: what catches it where seeds cannot: a file or a test, from the root of the repository on."""

    id: str
    switch: str
    file: str  # below headrace/
    old: str
    new: str
    test: str = ""


MUTANTS = (
    Mutant(
        "M1",
        "source positions move before the acknowledgement",
        "service/source.py",
        """        await pending.all_out()
        maybe(FaultPoint.SOURCE_ACKNOWLEDGED)
        self._made = made
        self._move(last_offset(records[-1]) + 1, records[-1])
""",
        """        self._made = made
        self._move(last_offset(records[-1]) + 1, records[-1])
        await pending.all_out()
        maybe(FaultPoint.SOURCE_ACKNOWLEDGED)
""",
    ),
    Mutant(
        "M2",
        "no token check in the fold",
        "service/engine/gate.py",
        "if record.token != self.token or self.token == NO_TOKEN:",
        "if self.token == NO_TOKEN:",
    ),
    Mutant(
        "M3",
        "one idempotency key for two tasks",
        "service/attempts.py",
        "            idempotency_key=idempotency_key(run, step),\n",
        "            idempotency_key=run.id,\n",
    ),
    Mutant(
        "M4",
        "a new idempotency key for each attempt",
        "service/attempts.py",
        "            idempotency_key=idempotency_key(run, step),\n",
        '            idempotency_key=f"{idempotency_key(run, step)}/{work.number}",\n',
    ),
    Mutant(
        "M5",
        "dedupe state lost on take-over",
        "service/owner.py",
        "        maybe(FaultPoint.TAKEN)\n",
        "        maybe(FaultPoint.TAKEN)\n        self.state.dedupe.origins.clear()\n",
    ),
    Mutant(
        "M6",
        "a high-water mark instead of floor and set",
        "service/engine/dedupe.py",
        "        if identity.offset < marks.floor:\n",
        "        if identity.offset <= max(marks.seen, default=-1):\n",
    ),
    Mutant(
        "M7",
        "a run goes on at the end of its attempt, not at the read-back",
        "service/owner.py",
        "            self._tenure.propose_result(outcome)\n",
        """            self._tenure.propose_result(outcome)
            ours = self.state.runs.get(outcome.run)
            if ours is not None and outcome.__class__.__name__ == "AttemptSucceeded":
                self.runs._advance(ours, outcome, self.state.clock_ms)
""",
    ),
    Mutant(
        "M8",
        "a timer counts by its own word, not by the log's clock",
        "service/engine/fold.py",
        "    if at_ms < fired.due_at_ms:\n",
        "    if at_ms < fired.due_at_ms - 60_000:\n",
    ),
    Mutant(
        "M9",
        "timers dropped on take-over",
        "service/awake_runs.py",
        "                self.idle.sleep_until(run_id, min(alarms, default=None))\n",
        "",
    ),
    Mutant(
        "M10",
        "a timer fires unrecorded",
        "service/awake_runs.py",
        "        self._tenure.propose(TimerFired(run=key[0], step=key[1], due_at_ms=due_at_ms))\n",
        """        fired = TimerFired(run=key[0], step=key[1], due_at_ms=due_at_ms)
        self._advance(self._state.runs[key[0]], fired, due_at_ms)
""",
    ),
    Mutant(
        "M13",
        "a second ending may be said",
        "service/run_endings.py",
        "        if ended.run not in self.said:\n",
        "        if ended.run:\n",
        test="tests/service/test_held_runs.py",
    ),
    Mutant(
        "M14",
        "compensation in order, not in reverse",
        "service/engine/compensation.py",
        "self._finished.pop()",
        "self._finished.pop(0)",
    ),
    Mutant(
        "M15",
        "the number of attempts is lost when a run is rebuilt",
        "service/awake_runs.py",
        "                number, due_at_ms = tries.failed + 1, tries.not_before_ms\n",
        "                number, due_at_ms = 1, tries.not_before_ms\n",
    ),
    Mutant(
        "M17",
        "what is queued behind a failed append goes on",
        "service/writer.py",
        "        behind, self._queue = self._queue, []\n        self.queued_bytes = 0\n",
        "        behind: list[_Put] = []\n",
    ),
    Mutant(
        "M18",
        "trimmed to the checkpoint's own offset",
        "service/checkpointer.py",
        "        await self.trim_held(dump.as_of + 1)\n",
        "        await self.trim_held(self.first)\n",
    ),
    Mutant(
        "M19",
        "a checkpoint counts whatever became of its chunks",
        "service/recovery.py",
        "                return False\n            elif record.offset == last:\n",
        "                pass\n            if record.offset == last:\n",
        test="tests/service/test_recovery.py",  # what a zombie writes is right all the same, as long as it has all of it
    ),
    Mutant(
        "M20",
        "records of a chunk in any order",
        "service/source.py",
        "        for record in records:\n            if isinstance(record, Unreadable):\n",
        "        for record in reversed(records):\n            if isinstance(record, Unreadable):\n",
    ),
    Mutant(
        "M21",
        "positions do not wait for dead letters",
        "service/set_aside.py",
        "        pending.add()\n        shared.publisher.put(topic, self._at.partition, record, gone)\n",
        "        shared.publisher.put(topic, self._at.partition, record, lambda *_: None)\n",
    ),
    Mutant(
        "M23",
        "a newer announce does not end an owner",
        "service/owner.py",
        "            raise OwnershipLost(self.at, record.offset)\n",
        "",
    ),
    Mutant(
        "M25",
        "release ignored by the gate",
        "service/engine/gate.py",
        "        if isinstance(record, Release):\n            self.token = NO_TOKEN\n",
        "",
    ),
    Mutant(
        "M26",
        "a command with a known id is accepted again",
        "service/engine/dedupe.py",
        "    if id_ in known:\n        return False\n",
        "",
    ),
    Mutant(
        "S1",
        "an announce counts whatever it names as the newest token",
        "service/engine/gate.py",
        "        if record.previous_token != self.last:\n            return Skip.DUPLICATE if record.nonce == self.nonce else Skip.STALE_TOKEN\n",
        "",
    ),
    Mutant(
        "S2",
        "no seq rule",
        "service/engine/gate.py",
        "        if record.seq != self.seq + 1:\n",
        "        if record.seq < 0:\n",
    ),
    Mutant(
        "S3",
        "a result's id says who sent it",
        "service/outbox.py",
        "            id=entry.id,\n            source=",
        '            id=f"{entry.id}/{shared.instance}",\n            source=',
    ),
    Mutant(
        "S4",
        "the slot of a key is not given back",
        "service/engine/new_run.py",
        "        del state.slots[run.slot]\n",
        "",
    ),
    Mutant(
        "S5",
        "the outbox is not sent again on take-over",
        "service/owner.py",
        "            if not self._tenure.has_sent(entry.id):\n",
        "            if not entry.id:\n",
    ),
    Mutant(
        "S6",
        "an output counts as sent when it is queued",
        "service/outbox.py",
        "        self._shared.publisher.put(emitted.topic,",
        "        tenure.sent(Sent(entry.id, 0, 0))\n        self._shared.publisher.put(emitted.topic,",
    ),
    Mutant(
        "S7",
        "a forwarded start's floor is its own",
        "service/outbox.py",
        "                floor=min(floor, identity.offset),\n",
        "                floor=identity.offset,\n",
        test="tests/service/test_outbox.py",
    ),
    Mutant(
        "S8",
        "a source's floor lies behind the record that is sent",
        "service/source.py",
        "                floor=self.floor,\n",
        "                floor=record.offset + 1,\n",
    ),
    Mutant(
        "S9",
        "an attempt that is being made is made again by its run's next life",
        "service/attempts.py",
        "        if work is not None and work.number == number:\n",
        "        if work is not None and work.number < 0:\n",
    ),
    Mutant(
        "S10",
        "a run whose end is on its way may fall asleep",
        "service/live_run.py",
        " and not self._said and not self.over\n",
        " and not self._said\n",
    ),
    Mutant(
        "S11",
        "the grace of a giver is ignored",
        "service/awake_runs.py",
        "                due_at_ms = max(due_at_ms, given.until_ms + _GRACE_EXTRA_MS)\n",
        "                pass\n",
    ),
    Mutant(
        "S12",
        "a retry does not wait",
        "service/awake_runs.py",
        "        if due_at_ms and due_at_ms > self._shared.clock.now_ms():\n",
        "        if due_at_ms < 0:\n",
    ),
    Mutant(
        "S13",
        "a checkpoint does not capture what is about to change",
        "service/owner.py",
        "            self.checkpointer.before(entry)\n",
        "            pass\n",
    ),
    Mutant(
        "S14",
        "a start goes on where it was read, not at the partition of its key",
        "service/engine/new_run.py",
        "        if home != state.partition:\n",
        "        if home < 0:\n",
    ),
    Mutant(
        "S15",
        "the owner's position is read behind the offsets",
        "service/owner.py",
        """        known = await position_of(self._shared, self.at)  # before the offsets: what it knows of lies below them
        offsets = await self._offsets()
""",
        """        offsets = await self._offsets()
        known = await position_of(self._shared, self.at)
""",
    ),
    Mutant(
        "S66",
        "a cancel may overtake the start of the child that it is for",
        "service/outbox.py",
        "if isinstance(entry, Message) and entry.after in waiting:",
        "if isinstance(entry, Message) and entry.after in waiting and not entry.after:",
        "tests/service/test_children.py::test_a_cancel_does_not_overtake_the_start_that_has_to_be_sent_again",
    ),
    Mutant(
        "S67",
        "the end of a parent leaves the children that it awaits alone",
        "service/engine/child.py",
        "    awaiting = sorted(run.children)  # bytes of a run do not keep an order\n",
        "    awaiting = sorted(run.children)[:0]\n",
    ),
    Mutant(
        "S68",
        "a parent waits for a slot that its own child keeps",
        "service/idle_runs.py",
        "needed=run in self._state.parents",
        "needed=False",
        "tests/service/test_children.py::test_a_parent_needs_no_slot_to_give_up_the_child_that_has_the_last_one",
    ),
    Mutant(
        "S16",
        "a start that joins begins a run of its own",
        "service/engine/new_run.py",
        "        case OnConflict.JOIN:\n",
        "        case OnConflict.QUEUE:\n",
    ),
    Mutant(
        "S17",
        "user code runs before the announce is read back",
        "service/owner.py",
        "        if error is not None:\n            self._announce_later()\n",
        "        if error is not None:\n            self._announce_later()\n        elif self._stage is _Stage.ANNOUNCED:\n            self._taken(_offset)\n",
    ),
    Mutant(
        "M16",
        "routers read on, however much waits",
        "service/admission.py",
        """        return (
            (self.full and self._waiting_of[topic] > 0)
""",
        """        return False and (
            (self.full and self._waiting_of[topic] > 0)
""",
        test="tests/service/test_admission.py",
    ),
    Mutant(
        "M22",
        "a cancelled attempt has a result",
        "handlers/guard.py",
        """            if owner_asked():
                raise
            return self._failure(definition, call, error, limit)
""",
        """            return self._failure(definition, call, error, limit)
""",
        test="tests/handlers/test_guard.py",
    ),
    Mutant(
        "M27",
        "a checkpoint without the outbox of ended runs",
        "service/engine/checkpoint.py",
        "        self._slots = dict.fromkeys(state.slots)  # those",
        """        self._dicts["outbox"] = {
            id_: entry for id_, entry in state.outbox.items() if getattr(entry, "run", None) in state.runs
        }
        self._slots = dict.fromkeys(state.slots)  # those""",
    ),
    Mutant(
        "M28",
        "a start that was not begun is trimmed",
        "service/checkpointer.py",
        "        before = runs.readable_from = before if oldest is None else min(before, oldest)\n",
        "        runs.readable_from = before if oldest is None else min(before, oldest)\n",
    ),
    Mutant(
        "S19",
        "a run may fall asleep while its cancelled steps are on their way",
        "service/live_run.py",
        "            self._said.update(turn.cancelled)\n",
        "            pass\n",
        test="tests/service/test_live_run.py",
    ),
    Mutant(
        "S20",
        "an output that is refused while its run ends of something else is forgotten",
        "service/engine/fold.py",
        "    if run.refusals:\n",
        "    if run.refusals < 0:\n",
    ),
    Mutant(
        "S21",
        "a retry's finished tasks are done again",
        "service/engine/retry.py",
        "        if each.record is not None and not behind:\n",
        "        if each.record is not None and behind:\n",
    ),
    Mutant(
        "S22",
        "a task that a retry does a second time keeps its key",
        "service/engine/retry.py",
        "            keys[each.step] = retry\n",
        "            pass\n",
    ),
    Mutant(
        "S23",
        "runs are not probed",
        "service/engine/probation.py",
        "        return len(self.unclean) == TAKEOVERS and now_ms - self.unclean[0] <= WINDOW_MS\n",
        "        return False\n",
    ),
    Mutant(
        "S24",
        "commands of an older replay epoch count",
        "service/engine/dedupe.py",
        "        elif marks.epoch > identity.epoch:\n            return False\n",
        "",
    ),
    Mutant(
        "S25",
        "a source goes on from a position of an older replay epoch",
        "service/replay_epochs.py",
        "        if found.epoch >= epoch:\n            return found\n",
        "        if found.epoch >= 0:\n            return found\n",
    ),
    Mutant(
        "S26",
        "sources are read on in an older replay epoch",
        "service/router.py",
        "if source.epoch < self._shared.epochs.of(at.topic)]",
        "if source.epoch < 0]",
    ),
    Mutant(
        "S27",
        "a record that ended the process is tried for ever",
        "service/source.py",
        "            if tries >= _TRIES_MAX and await self._given_up(record, tries):\n                return\n",
        "",
    ),
    Mutant(
        "S28",
        "what came before its own epoch was announced is forgotten",
        "service/engine/dedupe.py",
        "if origin[0] == topic and marks.epoch < epoch]:",
        "if origin[0] == topic and marks.epoch <= epoch]:",
    ),
    Mutant(
        "S29",
        "a struck run is tried while records may end the process",
        "service/source.py",
        "        async with self._shared.probes.none_alone():\n",
        "        async with contextlib.nullcontext():\n",
    ),
    Mutant(
        "S30",
        "a record is on trial beside runs",
        "service/source.py",
        "        async with self._shared.probes.none(), self._trial:\n",
        "        async with self._trial:\n",
        test="tests/service/test_source.py",
    ),
    Mutant(
        "S31",
        "what was folded of records that are lost stays",
        "service/owner.py",
        "        self.state.become(recovered.state)\n",
        """        if self.state.next_offset <= offsets.end:
            self.state.become(recovered.state)
        self.state.next_offset = min(self.state.next_offset, offsets.end)
""",
    ),
    Mutant(
        "S32",
        "records that are lost are no alarm",
        "service/owner.py",
        "                if error.offset > error.offsets.end:\n",
        "                if error.offset < 0:\n",
    ),
    Mutant(
        "S33",
        "any run log of the name will do",
        "service/run_log_check.py",
        "    if first and gate.first != first:\n",
        "    if first and gate.first != first and partitions < 0:\n",
    ),
    Mutant(
        "S34",
        "a run log that is refused is refused by one process only",
        "service/owner.py",
        "            await self._shared.owner_positions.refused(self.at, error.first, self._shared.partitions)\n",
        "",
    ),
    Mutant(
        "S35",
        "what is acknowledged and does not come back is waited for",
        "service/service.py",
        "                    await owner.look()\n",
        "                    pass\n",
    ),
    Mutant(
        "S40",
        "copies of a redriven dead letter are not told apart from new ones",
        "service/engine/fold.py",
        "                    and not state.dedupe.accept_redrive(identity, start.redriven, at_ms)\n",
        "                    and state.dedupe.redrives is None\n",
    ),
    Mutant(
        "M11",
        "a decision is answered before the log has judged it",
        "service/approval_command.py",
        "    if not seen.folded.without_effect:\n",
        "    if seen.raw is not None:\n",
        test="tests/service/cli/test_approval_commands.py",
    ),
    Mutant(
        "M12",
        "a decision counts after its deadline",
        "service/engine/approval_fold.py",
        "    if asked.due_at_ms is not None and at_ms >= asked.due_at_ms:\n",
        "    if asked.due_at_ms is not None and at_ms >= asked.due_at_ms + 60_000:\n",
    ),
    Mutant(
        "S50",
        "anybody decides, whatever role is asked for",
        "service/engine/approval_fold.py",
        "    if asked is None or not may_decide(asked.roles, approve.roles):\n",
        "    if asked is None:\n",
    ),
    Mutant(
        "S51",
        "a retry asks again what was decided",
        "service/engine/retry.py",
        '                finished.append(Finished(step, "succeeded", kept))\n',
        '                finished.append(Finished(step, "failed", None if kept else kept))\n',
    ),
    Mutant(
        "S52",
        "an ended run's approvals stay open",
        "service/engine/fold.py",
        "        instructions += withdraw(state, run, sorted(run.approvals), at_ms)\n",
        "        instructions += withdraw(state, run, (), at_ms)\n",
    ),
    Mutant(
        "S53",
        "a run that rests while it asks is woken by timers alone",
        "service/awake_runs.py",
        "            self._tell_fired(run, record, at_ms)\n            self._wake_if_idle(run.id)\n",
        "            self._tell_fired(run, record, at_ms)\n            if not isinstance(record, Approve):\n                self._wake_if_idle(run.id)\n",
    ),
    Mutant(
        "S61",
        "a slot's start counts whatever the newest slot is",
        "service/engine/schedule.py",
        "    next_ = known is not None and slot.after_ms == known.last_ms < slot.at_ms\n",
        "    next_ = known is not None\n",
    ),
    Mutant(
        "S62",
        "a slot's start counts before its time",
        "service/engine/schedule.py",
        "    if at_ms < slot.at_ms:\n",
        "    if at_ms < 0:\n",
    ),
    Mutant(
        "S63",
        "slots are missed before the one that comes instead is due",
        "service/engine/schedule.py",
        "    if at_ms < record.due_ms:\n",
        "    if at_ms < 0:\n",
        test="tests/service/engine/test_schedule.py",
    ),
    Mutant(
        "S64",
        "missed slots are left out whatever the newest slot is",
        "service/engine/schedule.py",
        "        or record.after_ms != known.last_ms\n",
        "",
        test="tests/service/engine/test_schedule.py",
    ),
    Mutant(
        "S65",
        "a start that an owner appends after a pause counts",
        "service/engine/schedule.py",
        "    if known is None or not next_ or known.paused_ms is not None:\n",
        "    if known is None or not next_:\n",
    ),
)
