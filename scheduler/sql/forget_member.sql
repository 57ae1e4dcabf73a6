-- Put $2 (text, a name of chance) in the place of member $1 (text) wherever the record names it, and
-- remove what people have written about its activities; nothing of it where any of them has not come to
-- its end ($3 text[]: the final statuses). The opt-out that binds the planner stays, unless $4 (boolean).
-- $5 actor and $6 reason are noted under the new name. One row: `unfinished`, `activities`, `commands`.
with
    unfinished as (
        select count(*) as rows
        from pod_activities
        where member_id = $1 and status <> all($3::text[])
    ),
    allowed as (select rows = 0 as yes from unfinished),
    renamed as (
        update pod_activities
        set member_id = $2, last_error = null, failures = null
        where member_id = $1 and (select yes from allowed)
        returning 1
    ),
    counted as (
        update member_engagement set member_id = $2 where member_id = $1 and (select yes from allowed)
    ),
    planned as (
        delete from member_plans where member_id = $1 and (select yes from allowed)
    ),
    commanded as (
        update commands
        set reason = null,
            subject = case when scope = 'member' then $2 else subject end
        where (
                scope = 'member' and subject = $1
                -- What names activities is about whoever they were of.
                or scope = 'activities' and (partition, command_offset) in (
                    select changed.partition, changed.command_offset
                    from activity_changes as changed
                    join pod_activities as activity on activity.id = changed.activity_id
                    where activity.member_id = $1
                )
            )
            and (select yes from allowed)
        returning 1
    ),
    controlled as (
        delete from controls
        where scope = 'member' and subject = $1 and (kind <> 'opted_out' or $4)
            and (select yes from allowed)
    ),
    noted as (
        insert into erasures (name, actor, reason, activities)
        select $2, $5, $6, (select count(*) from renamed)
        where (select yes from allowed)
    )
select
    (select rows from unfinished) as unfinished,
    (select count(*) from renamed) as activities,
    (select count(*) from commanded) as commands
