-- Rows of upstream systems that are pending and due, to be included before a further condition.
--   $1 text: this type alone (null: both), $2 timestamptz: due by then (null: by now),
--   $3 timestamptz and $4 uuid: `scheduled_for` and `id` of the last row seen ($4 null: none yet),
--   $5 int: how many at most
-- `as_of` is what $2 was, or now: with it the pages of one reading come to an end.
-- A null `scheduled_for` is due at once and stands first. What nobody has planned has no
-- source_partition: served by the index on those.
select
    id::text,
    pod_id,
    post_id,
    member_id,
    engagement_type,
    scheduled_for,
    coalesce($2::timestamptz, now()) as as_of
from pod_activities
where source_partition is null
    and status = 'pending'
    and ($1::text is null or engagement_type = $1)
    and (
        scheduled_for is null
        or scheduled_for <= coalesce($2::timestamptz, now())
    )
    and (
        $4::uuid is null
        or (coalesce(scheduled_for, '-infinity'), id)
            > (coalesce($3::timestamptz, '-infinity'), $4::uuid)
    )
