"""Cut a failing plan down while it still fails: fewer faults, fewer inputs, fewer instances, a kinder broker. Greedy, and bounded in tries."""

from collections.abc import Callable, Iterator

import msgspec

from tests.simulation.broker import BrokerKnobs
from tests.simulation.plan import Plan

_TRIES_MAX = 150


def minimised(plan: Plan, fails: Callable[[Plan], bool]) -> Plan:
    """The smallest plan found that fails like this one."""
    tries = 0
    shrunk = True
    while shrunk and tries < _TRIES_MAX:
        shrunk = False
        for smaller in _smaller(plan):
            tries += 1
            if fails(smaller):
                plan, shrunk = smaller, True
                break
            if tries >= _TRIES_MAX:
                break
    return plan


def _smaller(plan: Plan) -> Iterator[Plan]:
    def but(**changes: object) -> Plan:
        return msgspec.structs.replace(plan, **changes)

    for size in (len(plan.arrivals) // 2, 1):
        if 0 < size < len(plan.arrivals):
            for begin in range(0, len(plan.arrivals), size):
                if not plan.cancellations:
                    yield but(arrivals=plan.arrivals[:begin] + plan.arrivals[begin + size :])
    for index in range(len(plan.faults)):
        yield but(faults=plan.faults[:index] + plan.faults[index + 1 :])
    if plan.cancellations:
        yield but(cancellations=[])
    for index in range(len(plan.schedules)):
        yield but(schedules=plan.schedules[:index] + plan.schedules[index + 1 :])
    if plan.instances > 1:
        yield but(instances=plan.instances - 1)
    quiet = BrokerKnobs()
    for field in BrokerKnobs.__struct_fields__:
        if getattr(plan.knobs, field) != getattr(quiet, field):
            yield but(knobs=msgspec.structs.replace(plan.knobs, **{field: getattr(quiet, field)}))
    if plan.swallow:
        yield but(swallow=0.0)
    if plan.busy_s:
        yield but(busy_s=0.0)
    if plan.shuffled:
        yield but(shuffled=False)
