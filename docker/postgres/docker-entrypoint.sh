#!/bin/sh
# The official image's entry point in short: the first start makes the cluster, its user with a password, its database.
set -eu
as_postgres() { setpriv --reuid postgres --regid postgres --init-groups "$@"; }
cd /
install --directory --owner postgres --group postgres --mode 700 "$PGDATA"
if [ ! -s "$PGDATA/PG_VERSION" ]; then
  secret=$(mktemp)
  printf %s "$POSTGRES_PASSWORD" > "$secret"
  chown postgres "$secret"
  as_postgres initdb --username "$POSTGRES_USER" --pwfile "$secret" --auth scram-sha-256
  rm "$secret"
  echo "host all all all scram-sha-256" >> "$PGDATA/pg_hba.conf"
  echo "CREATE DATABASE $POSTGRES_DB" | as_postgres postgres --single postgres
fi
exec setpriv --reuid postgres --regid postgres --init-groups "$@" -h "*" -k /tmp
