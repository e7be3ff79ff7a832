"""``python -m simulator``: replay one seed, or search many."""
import argparse
import collections
import sys
import time

from simulator import running, schedule


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, help="replay this one, and show its trace")
    parser.add_argument("--runs", type=int, default=3000)
    parser.add_argument("--first", type=int, default=0, help="the seed to begin with")
    parser.add_argument("--keep-going", action="store_true", help="do not end at the first violation")
    options = parser.parse_args()
    if options.seed is not None:
        plan = schedule.make(options.seed)
        print(plan, end="\n\n")
        outcome = running.run(plan)
        print(outcome.log.render())
        return int(outcome.violation is not None)
    return _search(options)


def _search(options: argparse.Namespace) -> int:
    began, steps = time.perf_counter(), 0
    violations: collections.Counter[str] = collections.Counter()
    for seed in range(options.first, options.first + options.runs):
        outcome = running.run(schedule.make(seed))
        steps += outcome.steps
        if outcome.violation is not None:
            violations[outcome.violation.partition(":")[0]] += 1
            print(f"seed {seed}: {outcome.violation}")
            if not options.keep_going:
                break
    seconds = time.perf_counter() - began
    print(f"{options.runs} schedules, {steps} steps in {seconds:.1f} s ({steps / seconds:.0f} a second);"
          f" violations: {dict(violations) or 'none'}")
    return int(bool(violations))


if __name__ == "__main__":
    sys.exit(main())
