-- The role that dashboards and scalers read by: it may read the views of the schema `watch`, and nothing else. For the
-- owner of the database, after `distillery migrate`; it can be run again, and sets the password anew each time.
--
--   psql DATABASE_URL --set ON_ERROR_STOP=1 --set password="$(cat FILE)" --file deploy/grafana/reader.sql
--
-- The role is no migration's: a role belongs to the whole server, and its password to whoever runs it.

SELECT 'CREATE ROLE grafana' WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'grafana') \gexec
ALTER ROLE grafana LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE CONNECTION LIMIT 20 PASSWORD :'password';
-- A dashboard that asks too much is refused before it harms whoever writes.
ALTER ROLE grafana SET default_transaction_read_only = on;
ALTER ROLE grafana SET statement_timeout = '10s';
ALTER ROLE grafana SET search_path = watch;

SELECT format('GRANT CONNECT ON DATABASE %I TO grafana', current_database()) \gexec
GRANT USAGE ON SCHEMA watch TO grafana;
GRANT SELECT ON ALL TABLES IN SCHEMA watch TO grafana;
-- Views of later versions, too.
ALTER DEFAULT PRIVILEGES IN SCHEMA watch GRANT SELECT ON TABLES TO grafana;
