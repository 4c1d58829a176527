from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coterie.testbed.faults import (
    COMMON_OPTIONS,
    FAULTS,
    MAX_NAME_CHARS,
    FaultSyntaxError,
    UnknownFaultError,
    parse,
)


@pytest.mark.parametrize("name", FAULTS)
def test_a_name_alone_has_the_defaults(name: str) -> None:
    plan = parse(name)
    assert plan.fault is FAULTS[name]
    assert plan.number == (plan.fault.number.default if plan.fault.number else 0)
    assert plan.options == {
        option: known.default for option, known in {**COMMON_OPTIONS, **plan.fault.options}.items()
    }  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_s_pattern_means_its_defaults(name: str) -> None:
    assert parse(FAULTS[name].pattern) == parse(name)


def test_number_and_options() -> None:
    plan = parse("stall@5:seconds=0.25:tokens=20:marker=x=y:id=")
    assert (plan.fault.name, plan.count, plan.amount("seconds"), plan.amount("tokens")) == ("stall", 5, 0.25, 20)
    assert (plan.text("marker"), plan.text("id")) == ("x=y", "")


@pytest.mark.parametrize("model", ["", "gpt-4o", "Cut@4", "cut 4", "@4", ":tokens=4", "ok\n", "ok" * MAX_NAME_CHARS])
def test_no_fault_has_this_name(model: str) -> None:
    with pytest.raises(UnknownFaultError):
        parse(model)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("ok@3", "'ok' takes no number"),
        ("cut@", "the number of 'cut' is a whole number, not ''"),
        ("cut@4.5", "the number of 'cut' is a whole number, not '4.5'"),
        ("cut@-1", "the number of 'cut' is a whole number, not '-1'"),
        ("cut@\u0663", "the number of 'cut' is a whole number, not '\u0663'"),
        ("rate-limit@1e9", "the number of 'rate-limit' is a number, not '1e9'"),
        ("cut@1000001", "the number of 'cut' is at most 1e+06"),
        ("ok:tokens=many", "'tokens' of 'ok' is a whole number, not 'many'"),
        ("ok:speed=3", "'ok' has no option 'speed=3'; it has tokens, rate, seed, id, marker"),
        ("ok:tokens", "'ok' has no option 'tokens'; it has tokens, rate, seed, id, marker"),
        ("overflow:style=new", "'style' of 'overflow' is one of openai, vllm, llamacpp, sglang, ollama, tgi"),
    ],
)
def test_mistakes_are_told(model: str, message: str) -> None:
    with pytest.raises(FaultSyntaxError) as caught:
        parse(model)
    assert str(caught.value) == message


@given(
    st.text(max_size=40)
    | st.builds("{}@{}:{}={}".format, st.sampled_from(list(FAULTS)), st.text(), st.text(), st.text())
)
def test_any_text_is_a_plan_or_a_mistake(model: str) -> None:
    with contextlib.suppress(UnknownFaultError, FaultSyntaxError):
        assert model.startswith(parse(model).fault.name)
