-- What those who apply topic $1 to partition $2 must know of the members $3 (text[]).
-- One row: `version`, the offset of the last command that they must know of, -1 without any; `opted_out`.
select
    coalesce(
        (select controls from ingested_offsets where topic = $1 and partition = $2), -1
    ) as version,
    array(
        select subject
        from controls
        where partition = $2
            and kind = 'opted_out'
            and scope = 'member'
            and subject = any($3::text[])
            and active
    ) as opted_out
