-- Take the session's advisory lock $1 (bigint) if nobody has it. One row: `leads`.
select pg_try_advisory_lock($1) as leads
