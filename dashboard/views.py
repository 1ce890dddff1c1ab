"""The data of each page, made from the state and the models."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from dashboard.panels.backlog import SECONDS as BACKLOG_SECONDS
from dashboard.panels.backlog import Backlog, find_backlog
from dashboard.panels.kpis import SHOWN_MINUTES
from dashboard.panels.models import ModelPanel
from dashboard.panels.scores import PERCENTILES
from dashboard.panels.state import DashboardState
from udfs.contracts.outputs import BOT
from udfs.measurement.kpis import Kpi

QUALITY_MINUTES = 180
RATES_SECONDS = 300
#: The topics that a page depends on; problems with them are shown at its top.
TOPICS_OF = {
    "live": ("clicks", "scores"),
    "experiment": ("experiments",),
    "kpis": ("kpis",),
    "models": ("scores", "model_quality"),
    "drift": ("drift",),
    "dead-letters": (),
    "user": (),
}


@dataclass(frozen=True)
class Views:
    """The pages' data by name; each is a dict for JSON."""

    state: DashboardState
    models: ModelPanel
    kpis: Mapping[str, Kpi]

    def page(self, name: str, now_ms: int, version: str | None = None) -> dict:
        """The data of a page, and the status of its topics. Raises KeyError for an unknown page."""
        builders: dict[str, Callable[[int], dict]] = {
            "live": self._live,
            "experiment": self._experiment,
            "kpis": self._kpis,
            "models": self._models,
            "drift": lambda _: {"drift": self.state.drift.summary(version)},
            "dead-letters": self._dead_letters,
        }
        with self.state.lock:
            return {"status": self.status(name, now_ms)} | builders[name](now_ms)

    def status(self, name: str, now_ms: int) -> dict:
        """The state of the broker and of the page's topics."""
        state = self.state
        with state.lock:
            broker = "answers" if state.broker_lost_ms is None else "lost"
            return {
                "now": now_ms,
                "broker": broker if state.broker_asked else "asked",
                "broker_lost": state.broker_lost_ms,
                "broker_error": state.broker_error,
                "topics": [self._topic(role, now_ms) for role in TOPICS_OF[name]],
                "backlog": self._backlog(now_ms) if name == "live" else None,
            }

    def feature(self, version: str, name: str) -> dict | None:
        """The reference and the newest shares of a feature; None for one that no window has."""
        with self.state.lock:
            shares = self.state.drift.shares(version, name)
        if shares is None:
            return None
        reference = self.models.reference(version, name)
        if reference is not None and len(reference.shares) != len(shares):
            reference = None  # of another bundle: the bins are not the same
        return {
            "name": name,
            "version": version,
            "current": shares,
            "reference": reference and reference.shares,
            "bins": reference and self.models.bins(version, name),
            "missing": reference and reference.missing,
        }

    def _backlog(self, now_ms: int) -> Backlog | None:
        state = self.state
        clicks, scores, dead_letters = (
            state.flows[role].rate(BACKLOG_SECONDS) for role in ("clicks", "scores", "dead_letters")
        )
        answers = None if scores is None else scores + (dead_letters or 0.0)
        latency = state.latencies.summary(now_ms)
        return find_backlog(clicks, answers, latency and latency["p50"], state.latencies.budget_ms)

    def _topic(self, role: str, now_ms: int) -> dict:
        flow = self.state.flows[role]
        decoder = self.state.decoders.get(role)
        rate = flow.rate()
        return {
            "role": role,
            "topic": flow.topic,
            "state": flow.state(now_ms),
            "newest": flow.newest_ms,
            "silent_after": flow.silent_after_ms,
            "records": flow.records,
            "rate": None if rate is None else round(rate, 2),
            "unreadable": decoder.undecodable if decoder else 0,
            "last_error": decoder.last_error if decoder else "",
        }

    def _live(self, now_ms: int) -> dict:
        state = self.state
        since_ms = now_ms - now_ms % 1_000 - RATES_SECONDS * 1_000
        rates, minutes = {}, {}
        for role in ("clicks", "scores", "dead_letters"):
            starts, counts = state.flows[role].by_second.read(since_ms)
            whole = starts < now_ms - now_ms % 1_000 - 1_000
            rates[role] = {"times": starts[whole].tolist(), "values": counts[whole, 0].round(2).tolist()}
            starts, counts = state.flows[role].by_minute.read()
            minutes[role] = {"times": starts[:-1].tolist(), "values": (counts[:-1, 0] / 60).round(2).tolist()}
        starts, percentiles = state.latencies.history()
        experiments, drift = state.experiments.summary(), state.drift.summary()
        return {
            "topics": [self._topic(role, now_ms) for role in state.flows],
            "rates": rates,
            "rates_by_minute": minutes,
            "latency": state.latencies.summary(now_ms),
            "budget_ms": state.latencies.budget_ms,
            "latencies": {
                "times": starts.tolist(),
                **{f"p{name}": percentiles[:, at].round(1).tolist() for at, name in enumerate(PERCENTILES)},
            },
            "histogram": state.mix.histogram(),
            "acted": state.mix.acted(),
            "experiment": experiments[0] | {"kpis": []} if experiments else None,
            "drift": drift and {name: drift[name] for name in ("version", "level", "moved", "window_end")},
            "serving": self.models.summary().get("serving"),
            "models_error": self.models.summary()["error"],
        }

    def _experiment(self, _now_ms: int) -> dict:
        return {"experiments": self.state.experiments.summary(), "formulas": self._formulas()}

    def _formulas(self) -> dict:
        return {name: {"formula": kpi.formula, "direction": kpi.direction} for name, kpi in self.kpis.items()}

    def _kpis(self, _now_ms: int) -> dict:
        lines = self.state.kpis
        return {
            "lines": lines.lines(SHOWN_MINUTES),
            "placements": lines.placements(SHOWN_MINUTES),
            "sessions": self._sessions(),
            "formulas": self._formulas(),
            "minutes": SHOWN_MINUTES,
        }

    def _sessions(self) -> dict[str, int] | None:
        """The numbers of all closed sessions and of those of bots; None unless the denominator of a KPI is sessions."""
        kpi = next((name for name, kpi in self.kpis.items() if kpi.denominator == "sessions"), None)
        if kpi is None:
            return None
        by_arm = self.state.kpis.denominators(kpi, SHOWN_MINUTES)
        return {"all": round(sum(by_arm.values())), "bots": round(by_arm.get(BOT, 0))}

    def _models(self, _now_ms: int) -> dict:
        minutes, shares = self.state.mix.shares()
        return {
            "models": self.models.summary(),
            "quality": self.state.quality.lines(QUALITY_MINUTES),
            "calibration": self.state.calibration.table(),
            "mix": {
                "times": minutes.tolist(),
                "lines": [
                    {"arm": arm, "version": version, "values": values.round(4).tolist()}
                    for (arm, version), values in shares.items()
                ],
            },
        }

    def _dead_letters(self, now_ms: int) -> dict:
        return {
            "topic": self._topic("dead_letters", now_ms),
            "clicks": self._topic("clicks", now_ms),
            **self.state.rejected.summary(now_ms),
        }
