-- Wait for all others who replay dead letters into this database; $1 is one number for all of them.
select pg_advisory_xact_lock($1)
