"""What a coordinator must not forget: rounds, contributions, models, budgets, nodes, settings and the audit, in SQLite or PostgreSQL."""

from haina.coordinator.store.changes import Changes
from haina.coordinator.store.contributions import Fold
from haina.coordinator.store.engines import StoreError
from haina.coordinator.store.rows import (
    AuditRow,
    Conflict,
    ContributionRow,
    FederationRow,
    InvitationRow,
    ModelRow,
    NodeRow,
    Outcome,
    Overspent,
    RoundRow,
    Seen,
    SettingRow,
    Settlement,
    Taken,
    Unusable,
)
from haina.coordinator.store.store import Store

__all__ = [
    "AuditRow",
    "Changes",
    "Conflict",
    "ContributionRow",
    "FederationRow",
    "Fold",
    "InvitationRow",
    "ModelRow",
    "NodeRow",
    "Outcome",
    "Overspent",
    "RoundRow",
    "Seen",
    "SettingRow",
    "Settlement",
    "Store",
    "StoreError",
    "Taken",
    "Unusable",
]
