-- What the last command before offset $4 (bigint) has set as the quiet hours of subject $3 (text) of
-- scope $2 (text) in partition $1: at most one row, `value`, JSON, null where it took them back.
select value::text
from commands
where partition = $1
    and command = 'quiet_hours'
    and scope = $2
    and subject = $3
    and command_offset < $4
order by command_offset desc
limit 1
