"""How often, and how many at a time."""
import asyncio
import datetime

from steadyhook.core import facts, issuing, reasons, steps
from steadyhook.issuing import pacing

NOW = datetime.datetime(2030, 1, 1, tzinfo=datetime.UTC)
CA = facts.Certificate(fingerprint="ca", not_before=NOW, not_after=NOW)


def leaf(reason: reasons.Reason) -> issuing.Decision:
    action = steps.IssueLeaf(replaces=None, signer=CA, bundle=(CA,), generation=1, reason=reason)
    return issuing.Decision(actions=(action,), reason=reasons.Reason.ISSUING_LEAF, message="issuing a leaf")


def issued_within(seconds: int, reason: reasons.Reason) -> int:
    """How many leaves of those that are asked for each second."""
    keys, count = pacing.Keys(), 0
    for second in range(seconds):
        decision = keys.put_off(leaf(reason), clock=float(second), now=NOW)
        if decision.actions:
            keys.note(decision.actions[0], clock=float(second))
            count += 1
    return count


def test_a_few_requests_are_fulfilled_at_once_and_then_one_a_minute() -> None:
    assert issued_within(3, reasons.Reason.REQUESTED) == 3
    assert issued_within(3600, reasons.Reason.REQUESTED) == pacing.REQUESTS_AT_ONCE + 59


def test_repairs_are_limited_as_well_and_later() -> None:
    assert issued_within(20, reasons.Reason.SECRET_MISSING) == 20
    assert issued_within(3600, reasons.Reason.SECRET_MISSING) == pacing.KEYS_AT_ONCE + int(3599 // pacing.KEY_SECONDS)


def test_what_is_put_off_says_why_and_until_when() -> None:
    keys = pacing.Keys()
    for _ in range(pacing.REQUESTS_AT_ONCE):
        keys.note(leaf(reasons.Reason.REQUESTED).actions[0], clock=0.0)
    decision = keys.put_off(leaf(reasons.Reason.REQUESTED), clock=10.0, now=NOW)
    assert (decision.actions, decision.reason) == ((), reasons.Reason.PUT_OFF)
    assert decision.wake_at == NOW + datetime.timedelta(seconds=50)
    assert "put off until 00:00:50 UTC" in decision.message
    assert keys.put_off(leaf(reasons.Reason.EXPIRED), clock=10.0, now=NOW).actions  # a repair is not held up by it


def test_a_switch_waits_for_the_key_of_the_leaf_that_follows_it_and_takes_none() -> None:
    secret = facts.Secret(name="ca", uid="1", resource_version="1")
    switch = steps.Switch(authority=facts.Authority(secret=secret, certificate=CA, successor=CA), bundle=(CA,))
    decision = issuing.Decision(actions=(switch,), reason=reasons.Reason.SWITCHING, message="it signs from now on")
    keys = pacing.Keys()
    for _ in range(pacing.KEYS_AT_ONCE):
        assert keys.put_off(decision, clock=0.0, now=NOW).actions
        keys.note(switch, clock=0.0)
        keys.note(leaf(reasons.Reason.SWITCHING).actions[0], clock=0.0)
    assert keys.put_off(decision, clock=0.0, now=NOW).reason is reasons.Reason.PUT_OFF
    assert keys.put_off(decision, clock=pacing.KEY_SECONDS, now=NOW).actions


def test_few_have_a_turn_and_fewer_of_one_namespace() -> None:
    async def scenario() -> None:
        turns, running, most = pacing.Turns(), {"a": 0, "b": 0}, {"a": 0, "b": 0, "all": 0}

        async def one(namespace: str) -> None:
            async with turns.take(namespace):
                running[namespace] += 1
                most[namespace] = max(most[namespace], running[namespace])
                most["all"] = max(most["all"], sum(running.values()))
                await asyncio.sleep(0.001)
                running[namespace] -= 1

        await asyncio.gather(*(one(namespace) for namespace in "ab" for _ in range(50)))
        assert most == {"a": 2, "b": 2, "all": 4}

    asyncio.run(scenario())


def test_one_that_hangs_holds_up_nobody_else_for_ever() -> None:
    async def scenario() -> None:
        turns = pacing.Turns()
        before, pacing.TURN_SECONDS = pacing.TURN_SECONDS, 0.05
        try:
            hanging = asyncio.Event()

            async def hang(namespace: str) -> None:
                async with turns.take(namespace):
                    await hanging.wait()

            tasks = [asyncio.create_task(hang(f"bad-{number}")) for number in range(3 * pacing.TURNS)]
            async with asyncio.timeout(5), turns.take("good"):
                pass
            hanging.set()
            await asyncio.gather(*tasks)
            assert turns._all._value == pacing.TURNS  # each turn was given back once
        finally:
            pacing.TURN_SECONDS = before

    asyncio.run(scenario())
