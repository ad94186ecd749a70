"""Steps of the database from one version of Haina to the next, for Alembic; run by `haina.coordinator.store.migrate`."""
