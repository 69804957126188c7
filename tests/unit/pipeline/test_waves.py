import asyncio

import pytest

from app.pipeline.waves import WAVE_SECONDS, Waves


async def test_one_that_comes_alone_waits_for_nobody_and_those_that_follow_pass_together(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waves, loop, passed = Waves(), asyncio.get_running_loop(), list[str]()
    now = loop.time()
    monkeypatch.setattr(loop, "time", lambda: now)

    async def come(name: str) -> None:
        await waves.passing()
        passed.append(name)

    async def pass_at(moment: float) -> None:
        """Let the clock say this, and everybody pass who does by then."""
        nonlocal now
        now = moment
        for _ in range(5):
            await asyncio.sleep(0)  # a turn of the loop

    begin, later = now, WAVE_SECONDS * 1.01
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(come("alone"))
        await pass_at(begin)
        assert passed == ["alone"]
        tasks.create_task(come("a"))
        await pass_at(begin + WAVE_SECONDS / 4)
        tasks.create_task(come("b"))
        await pass_at(begin + WAVE_SECONDS / 2)
        assert passed == ["alone"]
        await pass_at(begin + later)
        assert sorted(passed[1:]) == ["a", "b"]
        tasks.create_task(come("right after a wave"))
        await pass_at(begin + later)
        assert len(passed) == 3
        await pass_at(begin + 3 * later)
        assert passed[3:] == ["right after a wave"]
        await pass_at(begin + 9 * later)
        tasks.create_task(come("alone again"))
        await pass_at(begin + 9 * later)
        assert passed[4:] == ["alone again"]
