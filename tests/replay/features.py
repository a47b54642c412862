"""What is recorded: one small definition per feature of the language and of the interpreter."""

from typing import Any, Final

OWN_QUEUE: Final = "recorded-own-queue"
INPUT: Final = {"n": 3, "task": "write a prime checker"}

_CODER: Final = {"coder": {"role": "coder"}}
_ROUTED: Final = {
    "coder": {"role": "coder", "model": {"among": ["deepseek/deepseek-chat", "qwen/qwen-2.5-coder"]}}
}
_ASK: Final = {"kind": "agent", "agent": "coder", "prompt": "${input.task}"}
# Nobody allowed this address, so the step fails at once.
_REFUSED: Final = {"kind": "tool", "tool": "http", "args": {"url": "http://127.0.0.1:9/"}}
_OWN: Final = {"activity": "recorded_own", "task_queue": OWN_QUEUE, "args": {"n": "${input.n}"}}
_PARSE: Final = {"tool": "json.parse", "args": {"text": "[1]"}}

FEATURES: Final[dict[str, dict[str, Any]]] = {
    "segment_chain": {
        "agents": _CODER,
        "steps": {
            "before": {"kind": "transform", "value": "${input.n + 1}"},
            "code": _ASK | {"needs": ["before"]},
            "size": {"kind": "transform", "value": "${size(steps.code.output)}"},
            "parsed": {"kind": "tool", "tool": "json.parse", "args": {"text": "[${steps.size.output}]"}},
            "never": _ASK | {"when": "steps.size.output < 0"},
            "refined": _ASK | {"when": "steps.size.output > 0"},
            "after": {
                "kind": "transform",
                "value": ["${steps.parsed.output.value}", "${steps[?'never'].?output.orValue('skipped')}"],
            },
        },
    },
    "whole_run_in_the_pin": {
        "steps": {
            "a": {"kind": "transform", "value": "${input.n + 1}"},
            "b": {"kind": "transform", "value": "${steps.a.output + 1}"},
        }
    },
    "labelled": {
        "steps": {
            "check": {"kind": "tool", "tool": "python.check", "args": {"source": "import os\n"}},
            "own": {"kind": "tool", **_OWN, "needs": ["check"]},
        }
    },
    "labelled_in_the_pin": {"steps": {"a": {"kind": "transform", "value": "${input.n + 1}"}}},
    "labelled_and_failed": {"steps": {"own": {"kind": "tool", **_OWN, "output_schema": {"type": "string"}}}},
    "routed_and_recalling_on_engine_2": {"agents": _ROUTED, "steps": {"code": _ASK | {"recall": True}}},
    "switch_and_join": {
        "agents": _CODER,
        "steps": {
            "route": {"kind": "switch", "cases": [{"when": "input.n > 2", "then": "big"}], "else": "small"},
            "big": _ASK | {"needs": ["route:big"]},
            "small": _ASK | {"needs": ["route:small"]},
            "other": {"kind": "tool", "tool": "python.check", "args": {"source": "import os\n"}},
            "either": {"kind": "transform", "needs": ["big", "small"], "join": "any", "value": 1},
            "two": _ASK | {"needs": ["big", "small", "other"], "join": {"quorum": 2}},
        },
    },
    "map_chained": {
        "steps": {
            "each": {
                "kind": "map",
                "over": "[1, 2, 3]",
                "max_items": 3,
                "body": {"steps": {"square": {"kind": "transform", "value": "${item * item}"}}},
            },
            "sum": {"kind": "transform", "value": "${size(list(steps.each.output))}"},
        }
    },
    "map_of_agents": {
        "agents": _CODER,
        "steps": {
            "each": {
                "kind": "map",
                "over": "[1, 2, 3]",
                "max_items": 3,
                "concurrency": 2,
                "tolerate": {"failed": 1},
                "body": {
                    "steps": {
                        "fetch": _REFUSED | {"when": "item == 2"},
                        "code": {"kind": "agent", "agent": "coder", "prompt": "${item}: ${input.task}"},
                        "size": {"kind": "transform", "value": "${size(steps.code.output)}"},
                    },
                    "output": "${steps.size.output}",
                },
            },
            "failed": {
                "kind": "transform",
                "value": "${list(steps.each.items).filter(i, i.status == 'failed').size()}",
            },
        },
    },
    "loop_of_agents": {
        "agents": _CODER,
        "steps": {
            "again": {
                "kind": "loop",
                "max_iterations": 3,
                "init": "${input.task}",
                "until": "iter.index == 1",
                "carry": "${iter.output}",
                "body": {
                    "steps": {
                        "code": {"kind": "agent", "agent": "coder", "prompt": "${iter.carry}"},
                        "short": {"kind": "transform", "value": "${size(steps.code.output)} characters"},
                    },
                    "output": "${steps.short.output}",
                },
            },
            "rounds": {"kind": "transform", "value": "${steps.again.iterations}"},
        },
    },
    "catch_then": {
        "steps": {
            "fetch": _REFUSED | {"catch": [{"errors": ["tool_not_allowed"], "then": "instead"}]},
            "used": {"kind": "transform", "value": "${steps.fetch.output.status}"},
            "instead": {"kind": "transform", "value": "${steps.fetch.error.code}"},
            "end": {
                "kind": "transform",
                "needs": ["used", "instead"],
                "join": "any",
                "value": "${steps[?'instead'].?output.orValue('fetched')}",
            },
        }
    },
    "catch_value": {
        "steps": {
            "fetch": _REFUSED | {"catch": [{"errors": ["*"], "value": {"status": 0}}]},
            "used": {"kind": "transform", "value": "${steps.fetch.output.status}"},
        }
    },
    "human_decision": {
        "steps": {
            "approve": {
                "kind": "human",
                "title": "${input.task}?",
                "approvals": 2,
                "remind_after": "1d",
                "assignees": ["user:ada", "user:bob", "user:eve"],
            },
            "end": {"kind": "transform", "value": "${steps.approve.output.decision}"},
        }
    },
    "human_timeout_escalation": {
        "steps": {
            "approve": {
                "kind": "human",
                "title": "${input.task}?",
                "assignees": ["user:ada"],
                "remind_after": "400ms",
                "timeout": "1s",
                "on_timeout": "escalate",
                "escalate_to": ["user:boss"],
                "catch": [{"errors": ["human_timeout"], "value": "nobody"}],
            }
        }
    },
    "child_collaboration": {
        "steps": {
            "child": {"kind": "collaboration", "ref": "recorded-child", "input": {"n": "${input.n}"}},
            "failing": {
                "kind": "collaboration",
                "ref": "recorded-failing-child",
                "input": {},
                "timeout": "10m",
                "catch": [{"errors": ["tool_failed"], "value": "failed"}],
            },
            "end": {"kind": "transform", "value": ["${steps.child.output}", "${steps.failing.output}"]},
        }
    },
    "planner": {
        "agents": {"planner": {"role": "architect"}},
        "budget": {"usd": 5, "time": "1h"},
        "steps": {
            "plan": {
                "kind": "agent",
                "agent": "planner",
                "emits": "definition",
                "prompt": "Plan: ${input.task}",
            },
            "work": {"kind": "collaboration", "definition": "${steps.plan.output}", "input": "${input}"},
        },
    },
    "wait": {
        "steps": {
            "shortly": {"kind": "wait", "for": "500ms"},
            "past": {"kind": "wait", "until": "2020-01-01T00:00:00Z", "needs": ["shortly"]},
        }
    },
    "compensation": {
        "steps": {
            "tool": {"kind": "tool", **_PARSE, "compensate": _PARSE},
            "own": {"kind": "tool", "needs": ["tool"], **_OWN, "compensate": _OWN},
            "bad": {"kind": "tool", "needs": ["own"], "tool": "json.parse", "args": {"text": "no JSON"}},
        }
    },
    "cancel_with_compensation": {
        "agents": _CODER,
        "steps": {
            "tool": {"kind": "tool", **_PARSE, "compensate": _PARSE},
            "slow": {"kind": "wait", "needs": ["tool"], "for": "1h"},
            "asking": {"kind": "human", "needs": ["tool"], "title": "Wait?"},
        },
    },
    "budget_question": {
        "agents": _CODER,
        "budget": {"usd": 0.000001, "on_exceed": "ask", "assignees": ["user:ada"]},
        "steps": {"code": _ASK},
    },
    "route_question": {
        "agents": {
            "coder": {"model": {"among": ["deepseek/deepseek-chat", "qwen/qwen-2.5-coder"], "ask_below": 0.5}}
        },
        "steps": {"first": {"kind": "human", "title": "Go?"}, "code": _ASK | {"needs": ["first"]}},
    },
    "fork": {
        "agents": _CODER,
        "steps": {
            "first": _ASK,
            "second": {"kind": "agent", "agent": "coder", "prompt": "Shorten:\n${steps.first.output}"},
        },
    },
    "agent_chained": {
        "agents": _CODER,
        "defaults": {"chain": "all"},
        "steps": {
            "first": _ASK,
            "second": {"kind": "agent", "agent": "coder", "prompt": "Shorten:\n${steps.first.output}"},
            "size": {"kind": "transform", "value": "${size(steps.second.output)}"},
        },
    },
    "live_stream": {
        "agents": _CODER,
        "steps": {
            "write": _ASK,
            "check": _ASK | {"prompt": "Review: ${steps.write.output}"},
            "maybe": _ASK | {"when": "input.n > 2"},
            "heard": _ASK | {"when": "input.n > 1"},
            "never": _ASK | {"when": "input.n > 9"},
            "unheard": _ASK,
            "one": _ASK,
            "two": _ASK,
        },
        "stream": [
            {"from": "write", "to": "check", "start": "sentence"},
            {"from": "maybe", "to": "heard", "start": "sentence"},
            {"from": "never", "to": "unheard", "start": "sentence"},
            {"from": "one", "to": "two", "start": "sentence", "turns": 1},
            {"from": "two", "to": "one", "start": "sentence", "turns": 1},
        ],
    },
    "steered": {
        "agents": _CODER,
        "steps": {
            "slow": {"kind": "collaboration", "ref": "recorded-slow-child"},
            "first": _ASK,
            "second": {"kind": "agent", "agent": "coder", "prompt": "Shorten:\n${steps.first.output}"},
            "each": {
                "kind": "map",
                "over": "[1, 2]",
                "max_items": 2,
                "needs": ["first"],
                "body": {"steps": {"code": {"kind": "agent", "agent": "coder", "prompt": "${item}?"}}},
            },
        },
    },
    "decided_by_id_and_signalled": {
        "steps": {
            "each": {
                "kind": "map",
                "over": "[1, 2]",
                "max_items": 2,
                "tolerate": {"failed": 2},
                "body": {"steps": {"broken": {"kind": "wait", "until": "${input.nope}"}}},
            },
            "approve": {"kind": "human", "title": "${input.task}?", "needs": ["each"]},
            "rest": {"kind": "wait", "for": "2s", "needs": ["approve"]},
            "bad": {"kind": "transform", "value": "${input.nope}", "needs": ["rest"]},
        }
    },
    "paused_and_continued_as_new": {
        "agents": _CODER,
        "steps": {
            "first": _ASK,
            "second": {"kind": "agent", "agent": "coder", "prompt": "Shorten:\n${steps.first.output}"},
        },
    },
    "continue_as_new": {
        "defaults": {"chain": "off"},
        "steps": {
            "many": {
                "kind": "loop",
                "max_iterations": 30,
                "body": {"steps": {"pause": {"kind": "tool", "tool": "pause", "args": {"seconds": 0}}}},
            },
            "asking": {"kind": "human", "title": "Go on?"},
            "end": {"kind": "transform", "needs": ["many", "asking"], "value": "${steps.many.iterations}"},
        },
    },
}


CHILDREN: Final[list[dict[str, Any]]] = [
    {"name": "recorded-child", "steps": {"more": {"kind": "transform", "value": "${input.n + 1}"}}},
    {
        "name": "recorded-failing-child",
        "steps": {"bad": {"kind": "tool", "tool": "json.parse", "args": {"text": "no JSON"}}},
    },
    {
        "name": "recorded-slow-child",
        "steps": {
            "rest": {"kind": "wait", "for": "2s"},
            "more": {"kind": "transform", "value": "rested", "needs": ["rest"]},
        },
    },
]
"""Definitions that the recorded ones run as steps."""
