#!/bin/sh
# Run once by the container of PostgreSQL, on an empty data folder: the database, its owner, and
# the role that nodes connect as. Passwords are read from files, and are on no command line.
set -eu

psql --no-psqlrc --quiet --set=ON_ERROR_STOP=1 --username=postgres --dbname=postgres <<'SQL'
\set owner `cat "${SECRETS:-/run/secrets}/owner-password"`
\set control `cat "${SECRETS:-/run/secrets}/control-password"`
CREATE ROLE keyward_owner LOGIN PASSWORD :'owner';
CREATE ROLE keyward_control LOGIN PASSWORD :'control';
CREATE DATABASE keyward OWNER keyward_owner;
REVOKE ALL ON DATABASE keyward FROM PUBLIC;
GRANT CONNECT ON DATABASE keyward TO keyward_control;
SQL
