"""The command line: `python tests/fake_openai --port 8000 --latency 0.1`. Each setting of Behaviour is a flag."""

import asyncio
import gc
import os
import sys
from argparse import ArgumentParser, BooleanOptionalAction, Namespace
from contextlib import suppress
from pathlib import Path
from typing import get_type_hints

import msgspec

# Started by its path, a folder is no package: its parent is what makes it one, and its own modules are not top-level.
sys.path[0] = str(Path(__file__).parent.parent)

from fake_openai.behaviour import Behaviour  # noqa: E402 - the path comes first
from fake_openai.ports import Ports  # noqa: E402 - the path comes first
from fake_openai.server import FakeServer  # noqa: E402 - the path comes first

try:
    from uvloop import run
except ImportError:
    from asyncio import run


def main() -> None:
    """Serve until interrupted, or until stdin closes where that is asked for."""
    parser = _parser()
    arguments = parser.parse_args()
    settings = {name: value for name, value in vars(arguments).items() if name in Behaviour.__struct_fields__}
    try:
        behaviour = msgspec.convert(settings, Behaviour, strict=False)
    except msgspec.ValidationError as error:
        parser.error(str(error))
    if arguments.cpu is not None:
        os.sched_setaffinity(0, {arguments.cpu})
    with suppress(KeyboardInterrupt):
        run(_serve(behaviour, arguments))


def _parser() -> ArgumentParser:
    parser = ArgumentParser(prog="fake_openai", description="An OpenAI-compatible server that answers by rule.")
    parser.add_argument("--port", type=int, default=0, help="0 is any free one (default)")
    parser.add_argument("--cpu", type=int, help="pin the process to this core")
    parser.add_argument("--until-stdin-closes", action="store_true", help="end when the parent does")
    for name, hint in get_type_hints(Behaviour, include_extras=True).items():
        says = next(meta.description for meta in hint.__metadata__ if meta.description)
        flag = f"--{name.replace('_', '-')}"
        default = getattr(Behaviour(), name)
        note = f"{says} (default: {default})" if default not in {None, ""} and default != () else says
        if isinstance(default, bool):
            parser.add_argument(flag, action=BooleanOptionalAction, default=default, help=note)
        elif isinstance(default, tuple):
            parser.add_argument(flag, nargs="*", default=default, help=note)
        else:
            parser.add_argument(flag, default=default, help=note)
    return parser


async def _serve(behaviour: Behaviour, arguments: Namespace) -> None:
    url, control = await Ports(FakeServer(behaviour)).open(arguments.port)
    gc.freeze()
    # Standard output is where the parent, or whoever started this by hand, reads the addresses.
    sys.stdout.write(f"{url}\ncontrol {control}\n")
    sys.stdout.flush()
    ended = asyncio.Event()
    if arguments.until_stdin_closes:
        asyncio.get_running_loop().add_reader(sys.stdin.fileno(), ended.set)
    await ended.wait()


if __name__ == "__main__":
    main()
