"""Budgets and their charges, the messages of secure aggregation, and the key that signs them."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the tables, and room for the rest."""
    op.add_column("node", sa.Column("identity", sa.String(64), nullable=True))
    op.add_column("node", sa.Column("dataset", sa.Text(), nullable=False, server_default=""))
    op.add_column("round", sa.Column("stage", sa.Text(), nullable=True))
    op.create_table(
        "sealed",
        sa.Column("federation", sa.String(63), nullable=False),
        sa.Column("round", sa.BigInteger(), nullable=False),
        sa.Column("stage", sa.String(63), nullable=False),
        sa.Column("node", sa.String(63), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.Column("received", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("federation", "round", "stage", "node"),
        sa.ForeignKeyConstraint(["federation", "round"], ["round.federation", "round.number"]),
    )
    op.create_table(
        "budget",
        sa.Column("owner", sa.String(63), nullable=False),
        sa.Column("dataset", sa.String(200), nullable=False),
        sa.Column("epsilon", sa.Double(), nullable=False),
        sa.Column("delta", sa.Double(), nullable=False),
        sa.Column("composition", sa.String(63), nullable=False),
        sa.Column("opened", sa.Double(), nullable=False),
        sa.Column("parts", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("owner", "dataset"),
    )
    op.create_table(
        "budget_part",
        sa.Column("owner", sa.String(63), nullable=False),
        sa.Column("dataset", sa.String(200), nullable=False),
        sa.Column("part", sa.String(63), nullable=False),
        sa.Column("epsilon", sa.String(80), nullable=False),
        sa.Column("delta", sa.String(80), nullable=False),
        sa.Column("rho", sa.String(80), nullable=False),
        sa.PrimaryKeyConstraint("owner", "dataset", "part"),
        sa.ForeignKeyConstraint(["owner", "dataset"], ["budget.owner", "budget.dataset"]),
    )
    op.create_table(
        "charge",
        sa.Column("id", sa.String(200), nullable=False),
        sa.Column("owner", sa.String(63), nullable=False),
        sa.Column("dataset", sa.String(200), nullable=False),
        sa.Column("part", sa.String(63), nullable=False),
        sa.Column("federation", sa.String(63), nullable=False),
        sa.Column("round", sa.BigInteger(), nullable=False),
        sa.Column("mechanism", sa.Text(), nullable=False),
        sa.Column("epsilon", sa.Double(), nullable=True),
        sa.Column("delta", sa.Double(), nullable=False),
        sa.Column("rho", sa.Double(), nullable=False),
        sa.Column("state", sa.String(63), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("why", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.ForeignKeyConstraint(["owner", "dataset"], ["budget.owner", "budget.dataset"]),
    )
    op.create_index("charge_budget", "charge", ["owner", "dataset"])
    op.create_index("charge_round", "charge", ["federation", "round"])
    op.create_index("charge_at", "charge", ["at"])


def downgrade() -> None:
    """Back to the first tables, but never over a charge: with the rows, what was spent would be forgotten, and could be spent again."""
    charges = op.get_bind().execute(sa.text("SELECT count(*) FROM charge")).scalar_one()
    if charges:
        raise RuntimeError(
            f"the database holds {charges} charges to privacy budgets, which revision 0001 would forget; "
            "export them, and empty the table charge only when nobody's data is to be used again"
        )
    for table in ("charge", "budget_part", "budget", "sealed"):
        op.drop_table(table)
    op.drop_column("round", "stage")
    op.drop_column("node", "dataset")
    op.drop_column("node", "identity")
