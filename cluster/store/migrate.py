"""Brings a database's schema to this version.

Runs inside the caller's transaction, so a migration happens wholly or not at all. Alembic keeps the running
migration in process-wide variables: one process migrates one database at a time.
"""

from __future__ import annotations

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from cluster.errors import ConfigError


def migrate(connection: Connection) -> None:
    """Upgrades to the newest revision; a current schema costs one query.

    Raises:
        ConfigError: the database was written by a newer version of this project, or before its first release.
    """
    config = Config()
    config.set_main_option("script_location", "cluster.store:migrations")
    config.attributes["connection"] = connection
    scripts = ScriptDirectory.from_config(config)
    current = MigrationContext.configure(connection).get_current_revision()
    if current == scripts.get_current_head():
        return
    if current is not None and current not in {script.revision for script in scripts.walk_revisions()}:
        raise ConfigError(
            f"store.url: the database has schema {current!r}, which this version does not know: a newer version wrote "
            "it, or one from before the first release. Install the version that wrote it, or name another database; "
            "nothing was changed."
        )
    command.upgrade(config, "head")
