-- The order of pending rows, to be included at the end; $5 as in pending_rows.sql.
order by coalesce(scheduled_for, '-infinity'), id
limit $5
