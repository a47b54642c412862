"""Who judges whom, as a definition says it."""

import json
from typing import Any

from plan.compile import compiled
from plan.verdicts import JudgedSteps, read
from schema.rules.validate import validate

SCORE = {"type": "object", "properties": {"quality": {"type": "number"}}}


def agent(prompt: str, **more: Any) -> dict[str, Any]:
    return {"kind": "agent", "agent": "a", "prompt": prompt, **more}


def verdicts(steps: dict[str, Any], **more: Any) -> JudgedSteps:
    document = {"name": "one", "agents": {"a": {"model": "openai/gpt-4o-mini"}}, "steps": steps, **more}
    source = validate(document).definition.model_dump(mode="json", by_alias=True, exclude_unset=True)
    return read(compiled(json.dumps(source), json.dumps(source)))


def test_a_prompt_that_shows_an_answer_may_judge_it_also_through_what_puts_it_together() -> None:
    found = verdicts(
        {
            "write": agent("Write"),
            "other": agent("Write too"),
            "both": {"kind": "transform", "value": ["${steps.write.output}", "${steps.other.output}"]},
            "again": {"kind": "transform", "value": "${steps.both.output[0]}"},
            "review": agent("Review ${steps.again.output}", output_schema=SCORE),
            "ask": {"kind": "human", "title": "Good?", "show": {"it": "${steps.both.output}"}},
        }
    )
    assert found.reviewed == (("review", "other"), ("review", "write"))
    assert found.shown == (("ask", "other"), ("ask", "write"))
    assert found.checked == ("review",)
    assert found.prompts["review"] == "Review ${steps.again.output}"


def test_a_condition_or_a_need_judges_nothing() -> None:
    found = verdicts(
        {
            "write": agent("Write"),
            "next": agent("Next", when="steps.write.output != ''"),
            "last": agent("Last", needs=["write", "next"]),
        },
        output="${steps[?'last'].?output.orValue('')}",
    )
    assert (found.reviewed, found.final) == ((), ("last",))


def test_what_the_output_or_a_judge_comes_from_is_final_also_from_within_bodies() -> None:
    found = verdicts(
        {
            "plan": agent("Plan"),
            "each": {
                "kind": "map",
                "over": "['a', 'b']",
                "max_items": 2,
                "body": {
                    "steps": {
                        "draft": agent("Draft ${item} of ${steps.plan.output}"),
                        "aside": agent("Aside"),
                        "whole": {"kind": "transform", "value": "${steps.draft.output}"},
                    },
                    "output": "${steps.whole.output}",
                },
            },
            "poem": agent("A poem"),
            "judge": agent("Judge ${steps.poem.output}", output_schema=SCORE),
            "news": agent("News"),
        },
        output="${steps.each.output}",
    )
    assert found.final == ("plan", "draft", "poem")
    # The map stands between them: another frame.
    assert found.reviewed == (("judge", "poem"),)


def test_in_a_loop_the_carry_makes_what_comes_next() -> None:
    found = verdicts(
        {
            "improve": {
                "kind": "loop",
                "init": "",
                "max_iterations": 3,
                "carry": {"notes": "${steps.review.output}"},
                "body": {
                    "steps": {
                        "write": agent("Better: ${iter.carry}"),
                        "review": agent("Review ${steps.write.output}"),
                    },
                    "output": "${steps.write.output}",
                },
            }
        }
    )
    assert found.reviewed == (("review", "write"),)
    assert found.final == ("write", "review")


def test_who_reads_another_live_reads_it_all_the_same() -> None:
    found = verdicts(
        {"write": agent("Write"), "watch": agent("Watch what is written", output_schema=SCORE)},
        stream=[{"from": "write", "to": "watch", "start": "sentence"}],
    )
    assert found.reviewed == (("watch", "write"),)
