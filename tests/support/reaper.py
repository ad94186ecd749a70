"""The reaper: kills at seeded random moments, and starts again what it killed."""

import random
import time


class Reaper:
    """Kills processes of a federation, one trial after the other; each begins when the last one's victims are up and a round has closed since.

    Args:
        federation: what goes on meanwhile.
        seed: of moments and victims.
        victims: names -> weight: `coordinator`, `node`, `postgres`.
    """

    def __init__(self, federation, seed, **victims):
        self._federation, self._random = federation, random.Random(seed)
        self._victims, self.seed = victims, seed
        self.kills = []

    def reap(self, trials):
        """So many kills."""
        federation = self._federation
        try:
            while len(self.kills) < trials:
                before = federation.ledger.closed
                assert not federation.finished, "too few rounds for so many kills"
                time.sleep(self._random.uniform(0.0, 0.6))
                # Now and then two at once.
                for kind in dict.fromkeys(self._choose() for _ in range(self._random.choice((1, 1, 1, 2)))):
                    self._kill(kind)
                federation.until(
                    lambda before=before: federation.ledger.closed > before or federation.finished,
                    "a round has closed",
                )
        finally:
            print(f"seed {self.seed}")
            for moment, closed, name in self.kills:
                print(f"  {moment:7.3f} s, {closed:3d} rounds closed: {name}")

    def _choose(self):
        return self._random.choices(list(self._victims), list(self._victims.values()))[0]

    def _kill(self, kind):
        federation, pause = self._federation, self._random.uniform(0.0, 0.3)
        if kind == "postgres":
            victim, restart = federation.postgres, federation.postgres.start
            name = "PostgreSQL"
        else:
            among = federation.coordinators if kind == "coordinator" else list(federation.nodes.values())
            victim = self._random.choice(among)
            name, restart = victim.name, victim.start
        moment = time.monotonic()
        victim.kill()
        self.kills.append((moment - federation.begun, federation.ledger.closed, name))
        # What nodes were told so far must be there now, before anything can be sent again.
        told = federation.told()
        if kind == "postgres":
            restart()
        federation.kept(told)
        if kind != "postgres":
            time.sleep(pause)
            restart()
