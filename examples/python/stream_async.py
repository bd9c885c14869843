"""Several answers at the same time, on one copy of the weights.   python stream_async.py MODEL PROMPT…"""

import asyncio
import sys

import quip


async def answer(model: quip.Model, prompt: str) -> None:
    with model.session(max_output_tokens=32) as session:
        async for piece in session.say_async(prompt):
            print(f"{prompt!r}: {piece!r}")


async def main() -> None:
    with quip.Model(sys.argv[1]) as model:
        await asyncio.gather(*(answer(model, prompt) for prompt in sys.argv[2:]))


if len(sys.argv) < 3:
    sys.exit(__doc__)
asyncio.run(main())
