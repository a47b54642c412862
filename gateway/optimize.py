"""Examples for a prompt, found by DSPy. An optional extra: imported when it is used, and only here."""

import logging
from collections.abc import Callable, Sequence
from typing import Any, Final

from gateway.request import Message
from schema.errors import Refused
from schema.language.prompts import Example

MAX_EXAMPLES: Final = 8
_MAX_ERRORS: Final = 10

Ask = Callable[[Sequence[Message]], str]
"""Returns the model's answer; blocks, and may raise."""
Accept = Callable[[str, str], bool]
"""(task, answer): whether the answer is worth being shown. Blocks."""


def dspy() -> Any:
    """The library; raises Refused where it is not installed."""
    try:
        import dspy as library
    except ImportError:
        raise Refused(
            "dspy_missing",
            "found no DSPy where the worker runs; expected the optional extra. Install it there with "
            "`uv sync --extra dspy`, and start the worker again.",
        ) from None
    # Its cache would lie in the home folder, and hide what calls cost.
    library.configure_cache(enable_disk_cache=False, enable_memory_cache=False)
    # It writes tasks and answers into the log. The caller reports what failed.
    logging.getLogger("dspy.teleprompt.bootstrap").disabled = True
    return library


def bootstrap(
    known: Sequence[Example], system_of: Callable[[str], str], ask: Ask, accept: Accept, *, reasons: bool
) -> list[Example]:
    """At most eight examples: tasks answered anew whose answers are accepted, and then good known answers.

    What the model is asked is what it will be asked with them later: the system prompt for the task, the
    examples as earlier answers, the task. `reasons`: the prompt asks for a chain of thought.
    """
    library = dspy()
    signature = library.Signature("task -> answer")
    module = library.ChainOfThought(signature) if reasons else library.Predict(signature)
    trained = [library.Example(task=one.input, answer=one.output).with_inputs("task") for one in known]

    def metric(example: Any, prediction: Any, trace: Any = None) -> bool:
        return accept(example.task, prediction.answer)

    optimizer = library.BootstrapFewShot(
        metric=metric,
        max_bootstrapped_demos=MAX_EXAMPLES,
        max_labeled_demos=MAX_EXAMPLES,
        max_errors=_MAX_ERRORS,
    )
    model = library.LM("facilitair/gateway", engine=_engine(library, ask), cache=False, num_retries=0)
    # A context and no configure(): settings of the process are others' too.
    with library.context(lm=model, adapter=_adapter(library, system_of)):
        compiled = optimizer.compile(module, trainset=trained)
    [predictor] = compiled.predictors()
    found = [Example(input=demo.task, output=demo.answer) for demo in predictor.demos if _fits(demo)]
    return found[:MAX_EXAMPLES]


def _fits(demo: Any) -> bool:
    return all(isinstance(text, str) and 0 < len(text) <= 20_000 for text in (demo.task, demo.answer))


def _engine(library: Any, ask: Ask) -> Any:
    """DSPy's way to a model: one request, one answer, over our own door."""
    lm15 = library.lm15

    class Engine:
        def complete(self, request: Any) -> Any:
            messages = [Message("system", request.system)] if request.system else []
            messages += [Message(one.role, one.text or "") for one in request.messages]
            return lm15.Response(
                id=None,
                model=request.model,
                message=lm15.Message.assistant([lm15.TextPart(ask(messages))]),
                finish_reason="stop",
                usage=lm15.Usage(),
            )

        def stream(self, request: Any) -> Any:
            return lm15.response_to_events(self.complete(request))

        def close(self) -> None:
            pass

    return Engine()


def _adapter(library: Any, system_of: Callable[[str], str]) -> Any:
    """Asks as the platform itself does, without DSPy's own marks around fields."""

    class Adapter(library.Adapter):  # type: ignore[misc]
        def format(
            self, signature: Any, demos: list[dict[str, Any]], inputs: dict[str, Any]
        ) -> list[dict[str, Any]]:
            task = inputs["task"]
            shown = [
                message
                for demo in demos
                for message in (
                    {"role": "user", "content": demo["task"]},
                    {"role": "assistant", "content": demo["answer"]},
                )
            ]
            said = system_of(task)
            system = [{"role": "system", "content": said}] if said else []
            return [*system, *shown, {"role": "user", "content": task}]

        def parse(self, signature: Any, completion: str) -> dict[str, Any]:
            # Where it reasons, it does so within its answer: that is what readers of the step see, too.
            return {name: completion if name == "answer" else "" for name in signature.output_fields}

    return Adapter()
