"""Alembic's environment: the steps run on the connection, and in the transaction, of the store that opens."""

from alembic import context

connection = context.config.attributes["connection"]
context.configure(connection=connection, transactional_ddl=True, render_as_batch=True)
context.run_migrations()
