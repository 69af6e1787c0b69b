#!/bin/bash
# Creates the cluster on the first start, then becomes the server.
#
# POSTGRES_PASSWORD is required; POSTGRES_USER defaults to postgres, POSTGRES_DB to POSTGRES_USER. The command is
# `postgres [options]` or the options alone; anything else runs as it is.
set -euo pipefail

[[ ${1:-} != -* ]] || set -- postgres "$@"

if [[ ${1:-} != postgres || " $* " =~ " "(--help|--version|-V)" " ]]; then
    exec "$@"
fi

if [[ $(id -u) == 0 ]]; then
    install -d -o postgres -g postgres -m 700 "$PGDATA"
    install -d -o postgres -g postgres -m 3777 /run/postgresql
    exec setpriv --reuid=postgres --regid=postgres --init-groups "$0" "$@"
fi

if [[ ! -s $PGDATA/PG_VERSION ]]; then
    : "${POSTGRES_PASSWORD:?a password for the superuser is needed: run with -e POSTGRES_PASSWORD=...}"
    user=${POSTGRES_USER:-postgres}
    database=${POSTGRES_DB:-$user}

    initdb --username="$user" --pwfile=<(printf '%s\n' "$POSTGRES_PASSWORD") \
        --encoding=UTF8 --locale=C.UTF-8 --auth-local=trust --auth-host=scram-sha-256 >/dev/null
    echo "host all all all scram-sha-256" >>"$PGDATA/pg_hba.conf"
    # In the file, not on the command line, so that an option of the caller wins.
    echo "listen_addresses = '*'" >>"$PGDATA/postgresql.conf"

    # The database is made in single-user mode: no temporary server that could look ready before the real one is.
    if [[ $database != postgres ]]; then
        postgres --single -c exit_on_error=on -c log_checkpoints=off -D "$PGDATA" postgres \
            <<<"CREATE DATABASE \"${database//\"/\"\"}\"" >/dev/null
    fi
fi

unset POSTGRES_PASSWORD
exec "$@"
