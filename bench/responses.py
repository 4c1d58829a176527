"""What the Responses API costs: the same answers as chat completions, as responses, and as responses that are stored.

The parts are those of the gateway benchmark (:mod:`bench.gateway`): the same lean upstream and client. All kinds are
asked of the same server, in turn, in each of several rounds of one run, so that the machine's moods hit all alike. What
is measured:

* processor time of the server for each chunk of a stream and each plain request;
* latency of plain requests and of whole streams, one at a time: what storing adds;
* latency of plain chat requests while 200 responses are generated in the background, beside that of a server with
  nothing else to do, and with as many chat streams;
* how late the tokens of 200 streams are, and the memory that each open stream takes.

Prints ratios beside what is aimed at; writes docs/benchmarks/responses.md.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import uvloop
from bench.responses_meter import FULL, QUICK, Findings, Meter, Plan
from bench.responses_orders import KINDS
from bench.responses_page import page
from bench.targets import COTERIE, Target, started, upstream


async def run(plan: Plan) -> Findings:
    """What was measured. Raises ``UnavailableError`` where the server does not start."""
    findings = Findings()
    ends_s = time.monotonic() + plan.within_s
    with tempfile.TemporaryDirectory() as name:
        async with upstream() as direct:
            await _memory(direct, Path(name), plan, findings)
            async with started(COTERIE, direct.client.port, Path(name)) as target:
                await _rounds(Meter(target, plan, findings), plan, findings, ends_s)
    return findings


async def _memory(direct: Target, folder: Path, plan: Plan, findings: Findings) -> None:
    for number, kind in enumerate(KINDS):
        _say(f"memory, {kind.name}")
        own = folder / str(number)
        own.mkdir()
        async with started(COTERIE, direct.client.port, own) as target:
            await Meter(target, plan, findings).memory(kind)


async def _rounds(meter: Meter, plan: Plan, findings: Findings, ends_s: float) -> None:
    _say("cost at rest")
    await meter.prepare()
    longest_s = 0.0
    while findings.rounds < plan.rounds and time.monotonic() + longest_s < ends_s:
        _say(f"round {findings.rounds + 1} of {plan.rounds}")
        begun_s = time.monotonic()
        await meter.round()
        longest_s = max(longest_s, time.monotonic() - begun_s)


def _say(text: str) -> None:
    print(time.strftime("%H:%M:%S"), text, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds; under two minutes")
    parser.add_argument("--write", type=Path, default=Path("docs/benchmarks"), help="the folder for the page")
    options = parser.parse_args()
    plan = QUICK if options.quick else FULL
    findings = uvloop.run(run(plan))
    text = page(findings, plan, options.quick)
    options.write.mkdir(parents=True, exist_ok=True)
    (options.write / "responses.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
