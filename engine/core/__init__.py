"""The pure part of a run: what it is made of, what happens in it, what to do next. No asyncio, clock, IO or frames."""
