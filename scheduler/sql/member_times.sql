-- When what is planned for the members $1 (text[]) falls due or fell due, from $2 (ms) on: what was
-- sent or will be. Served by the index of members.
select member_id, (extract(epoch from scheduled_for) * 1000)::bigint as due_ms
from pod_activities
where member_id = any($1::text[])
    and scheduled_for >= timestamptz 'epoch' + $2 * interval '1 millisecond'
    and status in ('scheduled', 'dispatched', 'executed', 'failed', 'retrying')
