"""Judge learning from every run: a bandit beside its rivals, and off-policy values against the truth.

Each model's outcome on each query is known, so the outcome of any choice is known.
"""

from copy import deepcopy
from typing import Final

import numpy as np
from numpy.typing import NDArray

from router.data.arrays import Floats, Ints
from router.data.exploration import FLOOR
from router.data.logged_choices import LoggedChoices
from router.data.outcomes import Calls
from router.statistics.bandit import Bandit, effects
from router.statistics.offpolicy import WORSE, dm, dr, ips, may_promote, predict, snips

STEPS: Final = 5100
_BROKEN: Final = 0.3
"""Success rate of a model that broke silently."""
_LOGGED: Final = 1700
_POOL: Final = 14
"""Models in one off-policy replay: with a floor each, more would leave nothing to the policy."""

ReplayScores = dict[str, float | None]


def judge_online(calls: Calls, seeds: int = 12, steps: int = STEPS) -> ReplayScores:
    """The bandit on queries one by one, knowing only what it chose, beside its rivals.

    Every query comes once before any comes again, and nothing of a query but its category is remembered.
    Halfway, in a second world, the best model breaks. About 3 s a seed.
    """
    calls = _complete(calls)
    if min(calls.ok.shape) < 2:
        return {"online_mean": None, "online_last_1000": None}
    best = int(calls.ok.mean(0).argmax())
    runs = [_run(calls, seed, steps, best) for seed in range(seeds)]
    got = np.array([run[0] for run in runs])
    mean, last = got.mean(1), got[:, -1000:].mean(1)
    judged: ReplayScores = {
        "online_mean": float(mean.mean()),
        "online_mean_sd": float(mean.std()),
        "online_last_1000": float(last.mean()),
        "online_last_1000_sd": float(last.std()),
        "online_best_single": float(calls.ok[:, best].mean()),
        "online_false_quarantines": float(np.mean([run[3] for run in runs])),
        "online_least_chance": float(min(run[4] for run in runs)),
        "before_break_500": float(np.mean([run[0][steps // 2 - 500 : steps // 2].mean() for run in runs])),
        "broken_model_next_500": float(np.mean([run[1].mean() for run in runs])),
        "broken_model_quarantined_after": float(max(run[2] for run in runs)),
        "broken_model_quarantined_after_mean": float(np.mean([run[2] for run in runs])),
    }
    for name in ("random", "thompson_category", "thompson_global", "thompson_hierarchical", "greedy_5"):
        rival = _rival(calls, name, seeds, steps)
        judged[f"online_mean_{name}"] = float(rival.mean())
        judged[f"online_last_1000_{name}"] = float(rival[:, -1000:].mean())
    return judged


def _complete(calls: Calls) -> Calls:
    """Models that are known nearly everywhere, on the queries where all of them are."""
    held = np.flatnonzero(np.isnan(calls.ok).mean(0) < 0.1)
    complete = Calls(
        calls.queries,
        calls.texts,
        calls.categories,
        tuple(calls.models[i] for i in held),
        calls.ok[:, held],
        calls.seconds[:, held],
        calls.input_tokens[:, held],
        calls.output_tokens[:, held],
    )
    return complete.only(np.flatnonzero(~np.isnan(complete.ok).any(1)))


def _order(queries: int, seed: int, steps: int) -> Ints:
    rounds = range(-(-steps // queries))
    return np.concatenate([np.random.default_rng([seed, k]).permutation(queries) for k in rounds])[:steps]


def _run(calls: Calls, seed: int, steps: int, best: int) -> tuple[Floats, Floats, int, int, float]:
    """Successes; those after the best model broke in a second world; its bad outcomes there until it was out
    (or till the end); quarantines of models that were well; the least chance of anyone who was chosen."""
    bandit = Bandit(list(calls.models), seed)
    got, least, wrong = np.zeros(steps), 1.0, 0
    broken = np.zeros(0)
    bad = 0
    order = _order(len(calls.queries), seed, steps)
    for step, query in enumerate(order):
        if step == steps // 2:
            broken, bad = _broken(calls, deepcopy(bandit), order[step : step + 500], best, seed)
        category = str(calls.categories[query])
        choice = bandit.choose(category, calls.models, str(step))
        ok = calls.ok[query, calls.models.index(choice.model)] > 0.5
        out = len(bandit.quarantined)
        bandit.learn(choice.model, category, bool(ok))
        wrong += len(bandit.quarantined) > out
        got[step], least = ok, min(least, choice.chances[choice.model])
    return got, broken, bad, wrong, least


def _broken(calls: Calls, bandit: Bandit, order: Ints, best: int, seed: int) -> tuple[Floats, int]:
    random = np.random.default_rng([seed, 99])
    got, bad = np.zeros(len(order)), 0
    was_out = False
    for step, query in enumerate(order):
        category = str(calls.categories[query])
        choice = bandit.choose(category, calls.models, f"broken {step}")
        place = calls.models.index(choice.model)
        ok = bool(random.random() < _BROKEN) if place == best else bool(calls.ok[query, place] > 0.5)
        if not was_out and place == best:
            bad += not ok
        bandit.learn(choice.model, category, ok)
        was_out = was_out or calls.models[best] in bandit.quarantined
        got[step] = ok
    return got, bad


def _rival(calls: Calls, name: str, seeds: int, steps: int) -> Floats:
    """(seeds, steps) successes of a plain bandit; all seeds at once."""
    random = np.random.default_rng(0)
    _, category = np.unique(calls.categories, return_inverse=True)
    order = np.stack([_order(len(calls.queries), seed, steps) for seed in range(seeds)])
    each, models = np.arange(seeds), len(calls.models)
    right = np.zeros((seeds, models, int(category.max()) + 1))
    wrong = np.zeros_like(right)
    got = np.zeros((seeds, steps))
    for step in range(steps):
        query = order[:, step]
        column = category[query]
        good, bad = right[each, :, column], wrong[each, :, column]
        all_good, all_bad = right.sum(2), wrong.sum(2)
        if name == "random":
            score = random.random((seeds, models))
        elif name == "thompson_category":
            score = random.beta(1 + good, 1 + bad)
        elif name == "thompson_global":
            score = random.beta(1 + all_good, 1 + all_bad)
        elif name == "thompson_hierarchical":
            base = random.beta(1 + all_good, 1 + all_bad)
            score = random.beta(good + 10 * base + 1e-3, bad + 10 * (1 - base) + 1e-3)
        else:
            base = (1 + all_good) / (2 + all_good + all_bad)
            score = (good + 10 * base) / (good + bad + 10) + 1e-6 * random.random((seeds, models))
            score[random.random(seeds) < 0.05] = random.random(models)
        chosen = score.argmax(1)
        got[:, step] = calls.ok[query, chosen]
        right[each, chosen, column] += got[:, step]
        wrong[each, chosen, column] += 1 - got[:, step]
    return got


def judge_offpolicy(calls: Calls, replays: int = 200) -> ReplayScores:
    """Estimates from logged choices against what is known of all, and what the gate lets through.

    Logged by Thompson after 300 outcomes with a floor for everyone. Judged is the next checkpoint (learned
    from another such log), the best single model and the policy before; apart, a spoiled checkpoint and any
    single model. The gate is asked about all but the policy before. About 10 s.
    """
    calls = _complete(calls)
    if min(calls.ok.shape) < 2:
        return {"ope_rmse": None, "ope_coverage": None}
    errors: dict[str, list[tuple[float, bool]]] = {}
    gate: list[tuple[float, bool]] = []
    for replay in range(replays):
        random = np.random.default_rng([7, replay])
        pool = random.permutation(len(calls.models))[:_POOL]
        ok, (_, category) = calls.ok[:, pool], np.unique(calls.categories, return_inverse=True)
        log, queries, policies = _logged(ok, category, random)
        predicted = predict(log)
        before = policies["before"]
        for name, policy in policies.items():
            true, on_log = float((policy * ok).sum(1).mean()), policy[queries]
            far = "_far" if name in ("spoiled", "any") else ""
            values = {
                "ips": ips(log, on_log),
                "snips": snips(log, on_log),
                "dm": dm(log, on_log, predicted),
                "dr_plain": dr(log, on_log, predicted, np.inf),
                "dr": dr(log, on_log, predicted),
            }
            for estimator, value in values.items():
                one = (value.mean - true, value.low <= true <= value.high)
                errors.setdefault(f"{estimator}{far}", []).append(one)
            if name != "before":
                passed, _ = may_promote(log, on_log, before[queries], predicted)
                gate.append((true - float((before * ok).sum(1).mean()), passed))
    judged: ReplayScores = {}
    for name, found in errors.items():
        key = name.removeprefix("dr") if name in ("dr", "dr_far") else f"_{name}"
        judged[f"ope_rmse{key}"] = float(np.sqrt(np.mean([error**2 for error, _ in found])))
        judged[f"ope_coverage{key}"] = float(np.mean([covered for _, covered in found]))
    harm = [passed for gain, passed in gate if gain < -WORSE]
    good = [passed for gain, passed in gate if gain > WORSE]
    judged["ope_harm_promoted"] = float(np.mean(harm)) if harm else None
    judged["ope_harm_asked"] = float(len(harm))
    judged["ope_better_promoted"] = float(np.mean(good)) if good else None
    return judged


def _logged(
    ok: Floats, category: NDArray[np.int64], random: np.random.Generator
) -> tuple[LoggedChoices, Ints, dict[str, Floats]]:
    """A log, its queries, and policies over all queries (Q, M)."""
    queries, models = ok.shape
    columns = int(category.max()) + 1

    def sample(chances: Floats, number: int) -> tuple[Ints, Ints]:
        drawn = random.integers(queries, size=number)
        point = random.random(number)[:, None]
        return drawn, np.minimum((chances[drawn].cumsum(1) < point).sum(1), models - 1)

    def counted(drawn: Ints, chosen: Ints) -> tuple[Floats, Floats]:
        tried, right = np.zeros((models, columns)), np.zeros((models, columns))
        np.add.at(tried, (chosen, category[drawn]), 1)
        np.add.at(right, (chosen, category[drawn]), ok[drawn, chosen])
        return tried, right

    def greedy(by_category: Ints) -> Floats:
        return np.eye(models)[by_category[category]]

    tried, right = counted(*sample(np.full((queries, models), 1 / models), 300))
    first = effects(tried, right)
    draws = first.mean + first.sd * random.standard_normal((200, models, columns))
    won = np.eye(models)[draws.argmax(1)].mean(0)
    floor = min(FLOOR, 0.5 / models)
    chances = (floor + (1 - models * floor) * won)[category]
    more = counted(*sample(chances, _LOGGED))
    following = effects(tried + more[0], right + more[1]).mean.argmax(0)
    spoiled = np.where(random.random(columns) < 0.3, random.integers(models, size=columns), following)
    drawn, chosen = sample(chances, _LOGGED)
    log = LoggedChoices(chosen, chances[drawn], ok[drawn, chosen], category[drawn])
    return (
        log,
        drawn,
        {
            "next": greedy(following),
            "best": greedy(np.full(columns, ok.mean(0).argmax())),
            "before": greedy(first.mean.argmax(0)),
            "spoiled": greedy(spoiled),
            "any": greedy(np.full(columns, random.integers(models))),
        },
    )
