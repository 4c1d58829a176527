"""What a gateway costs: the same upstream reached directly, through Coterie, and through gateways that others make.

All of them are asked in turn, in each of several rounds of one run, so that the machine's moods hit all alike. The
upstream (:mod:`bench.mock_upstream`) and the client (:mod:`bench.load_client`) are lean, so that two cores suffice for
them and the gateway. What is measured:

* processor time of the gateway, as the system accounts for it, for each plain request and each chunk of a stream, less
  what it takes when nobody asks; a chunk is the difference between long and short streams;
* latency that a gateway adds: a percentile through it less the same percentile of the upstream;
* requests in a second from 32 askers who never pause;
* memory that each open stream takes: growth of the process's share of memory;
* how many streams of 20 tokens a second it keeps with hardly any token late;
* whether tokens wait for Nagle's algorithm and delayed acknowledgements, which shows as pauses of 40 ms.

Beside them stands a relay in Python that does nothing else (:mod:`bench.bare_relay`): what the language itself costs.

Prints ratios beside what is aimed at; writes docs/benchmarks/gateway.md and gateway.svg.
"""

from __future__ import annotations

import argparse
import contextlib
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import uvloop
from bench.gateway_chart import chart
from bench.gateway_meter import FULL, QUICK, Meter, Plan
from bench.gateway_page import page
from bench.gateway_summary import Summary
from bench.targets import BARE, COTERIE, PEERS, UnavailableError, started, upstream


async def run(plan: Plan, *, with_peers: bool) -> tuple[list[Meter], dict[str, str]]:
    """Every target's measurements, and the peers that could not take part with the reason."""
    absent: dict[str, str] = {}
    async with contextlib.AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        direct = await stack.enter_async_context(upstream())
        targets = [direct]
        for recipe in (COTERIE, BARE, *(PEERS if with_peers else ())):
            try:
                targets.append(await stack.enter_async_context(started(recipe, direct.client.port, folder)))
            except UnavailableError as error:
                absent[recipe.name] = str(error)
        meters = [Meter(target, plan) for target in targets]
        await _measure(meters, plan)
    return meters, absent


async def _measure(meters: Sequence[Meter], plan: Plan) -> None:
    for meter in meters:
        _say(f"{meter.target.name}: memory and cost at rest")
        await meter.prepare()
    for number in range(plan.rounds):
        first = number % len(meters)
        for meter in (*meters[first:], *meters[:first]):
            _say(f"{meter.target.name}: round {number + 1} of {plan.rounds}")
            await meter.round()
    for meter in meters:
        if plan.peers_in_full or meter.target.is_fast:
            _say(f"{meter.target.name}: how many streams")
            await meter.hold()


def _say(text: str) -> None:
    print(time.strftime("%H:%M:%S"), text, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds; under three minutes")
    parser.add_argument("--no-peers", action="store_true", help="only the upstream, Coterie and the bare relay")
    parser.add_argument("--write", type=Path, default=Path("docs/benchmarks"), help="the folder for page and chart")
    options = parser.parse_args()
    plan = QUICK if options.quick else FULL
    meters, absent = uvloop.run(run(plan, with_peers=not options.no_peers))
    direct, *gateways = meters
    summaries = [Summary.of(meter, direct) for meter in (direct, *gateways)]
    text = page(summaries, absent, plan, options.quick)
    options.write.mkdir(parents=True, exist_ok=True)
    (options.write / "gateway.md").write_text(text)
    (options.write / "gateway.svg").write_text(chart(summaries))
    print(text)


if __name__ == "__main__":
    main()
