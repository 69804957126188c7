import asyncio

from app.pipeline.waves import Waves

SECONDS = 0.05


async def test_one_that_comes_alone_waits_for_nobody_and_those_that_follow_pass_together() -> None:
    waves, loop = Waves(SECONDS), asyncio.get_running_loop()
    passed: list[float] = []

    async def come() -> None:
        await waves.passing()
        passed.append(loop.time())

    began = loop.time()
    await come()
    assert passed[0] - began < SECONDS
    tasks = []
    for _ in range(5):
        tasks.append(asyncio.create_task(come()))
        await asyncio.sleep(0)
    await asyncio.gather(*tasks)
    assert all(moment >= began + SECONDS for moment in passed[1:])
    again = asyncio.create_task(come())  # right after a wave: it is in the next one
    await again
    assert passed[-1] >= min(passed[1:]) + SECONDS
