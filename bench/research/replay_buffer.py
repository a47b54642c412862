"""What PPO tried, as rows of the replay buffer in Postgres and back."""

from collections.abc import Sequence
from uuid import NAMESPACE_URL, uuid5

from bench.research.experiences import Experience
from bench.research.ppo import Experiences, experiences


def rows_of(found: Experiences, run: str, first: int) -> list[Experience]:
    """As the replay buffer keeps them; `run` and the number of the first episode name the episodes."""
    rows: list[Experience] = []
    episode, turn = first, 0
    for at in range(len(found.action)):
        rows.append(
            Experience(
                uuid5(NAMESPACE_URL, f"facilitair:{run}/{episode}"),
                turn,
                found.observation[at].tolist(),
                int(found.action[at]),
                float(found.log_chance[at]),
                float(found.value[at]),
                float(found.reward[at]),
                bool(found.done[at]),
            )
        )
        episode, turn = (episode + 1, 0) if found.done[at] else (episode, turn + 1)
    return rows


def of_rows(rows: Sequence[Experience]) -> Experiences | None:
    """What `rows_of` made; None of none."""
    if not rows:
        return None
    return experiences(
        [(one.observation, one.action, one.log_chance, one.value, one.reward, one.done) for one in rows]
    )
