"""Budget: a time, shared out between the studies of a quick run as levels (lib.sizes), and what became of it.

    python -m report.budget --model data/models/pico-llama --profile quick        planned against real minutes
"""
import re

from lib import artifacts, sizes, stage
from lib.artifacts import UserError

STAGES = ("01_extract", "02_tune", "03_transfer", "04_compose", "05_reliability")
STEPS = 12                       # halvings of a level: to .0002


def seconds(text):
    """Seconds of "60m", "1.5h" or "3600s". UserError for anything else."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([hms])", str(text).strip())
    if not found or not float(found[1]):
        raise UserError(f"budget {text!r}: expected a time such as 60m, 1.5h or 3600s")
    return float(found[1]) * {"h": 3600, "m": 60, "s": 1}[found[2]]


def levels(costs, budget):
    """{study: level} that spend a budget, seconds; costs {study: function of a level, seconds, that never falls}.

    Every study gets an equal part. What one cannot use, at level 1, goes to the others; what one needs beyond its
    part at level 0 is taken from them. While all together take longer at level 0, the study that takes longest is left
    out (level None), but for the last. So the sum exceeds the budget only if that is less than the cheapest takes."""
    dearest = max(costs, key=lambda study: costs[study](0.0), default=None)
    if len(costs) > 1 and sum(cost(0.0) for cost in costs.values()) > budget:
        return levels({study: cost for study, cost in costs.items() if study != dearest}, budget) | {dearest: None}
    found, left = {}, budget
    while len(found) < len(costs):
        part = left / (len(costs) - len(found))
        ends = {study: (0.0, cost(0.0)) for study, cost in costs.items() if study not in found and cost(0.0) >= part}
        ends = ends or {study: (1.0, cost(1.0)) for study, cost in costs.items()
                        if study not in found and cost(1.0) <= part}
        if not ends:
            return {study: found.get(study, _level(cost, part)) for study, cost in costs.items()}
        for study, (level, spent) in ends.items():
            found[study], left = level, left - spent
    return {study: found[study] for study in costs}


def _level(cost, part):
    """The highest level of three digits that costs at most `part`."""
    low, high = 0.0, 1.0
    for _ in range(STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if cost(middle) <= part else (low, middle)
    return int(low * 1000) / 1000


def spent(folder):
    """Lines: planned against real minutes of every stage of a quick run that is done; of one that was interrupted, of
    its last start."""
    plan = artifacts.read_json(folder / stage.PLAN)
    lines, total = [f"{folder}: budget {plan['budget'] / 60:g} min, {sizes.told(plan['levels'])}",
                    f"{'stage':16s}{'planned':>9s}{'real':>9s}  min"], [0.0, 0.0]
    for name in STAGES:
        if (folder / name / "run.json").is_file():
            pair = plan["minutes"][name], artifacts.read_json(folder / name / "run.json")["wall_s"] / 60
            total = [a + b for a, b in zip(total, pair)]
            lines.append(f"{name:16s}{pair[0]:9.1f}{pair[1]:9.1f}")
    rest = f"and {plan['minutes']['start']:.1f} planned for the plan, starts and the page"
    return [*lines, f"{'all':16s}{total[0]:9.1f}{total[1]:9.1f}  {rest}"]


def main():
    args = stage.cli(__doc__, many=True).parse_args()
    for model in args.model:
        folder = stage.paths(args, model)
        if (folder / stage.PLAN).is_file():
            print("\n".join(spent(folder)))


if __name__ == "__main__":
    artifacts.run(main)
